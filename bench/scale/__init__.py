"""Training spread over worker processes: blocks, data or stages each on a worker of their own, measured and modelled.

work.py says what is to be measured; group.py starts the workers and ends them; worker.py is what one does, in one of
three ways (ways.py) over counted and timed messages (link.py); model.py computes what more workers would reach from
what one was seen to do (profile.py); study.py makes records of it all.
"""
