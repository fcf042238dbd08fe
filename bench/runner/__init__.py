"""One run in this process: wiring, the timed loop, evaluation, checkpoints."""
