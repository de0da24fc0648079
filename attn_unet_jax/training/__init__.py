"""Trains a network: state, step, compilation for devices, loop and checkpoints.

`step.py` computes a step and `compile.py` compiles it for the devices of `mesh.py`; `inputs.py`
opens the data that it reads and `placement.py` moves them to the devices. `loop.py` is the order of
events, `checkpoint.py` saves states, `nonfinite.py` and `epoch_end.py` report. The package knows
nothing of configs, flags and commands: it receives a `TrainingRecipe`.
"""
