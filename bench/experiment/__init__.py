"""What is asked for: experiments, their runs, what makes a run the same run, and the ranges of settings."""
