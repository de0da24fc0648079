"""Training: state, the step as one pure function, its compilation, the loop, checkpoints, logs.

`step.py` holds the mathematics, `parallel.py` compiles it, `inputs.py` opens what it reads,
`loop.py` is the order of events, `checkpoint.py` keeps states, `logs.py` writes what a person
reads. This package may use everything
but the commands; it knows nothing of flags.
"""
