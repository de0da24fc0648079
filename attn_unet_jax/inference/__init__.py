"""From a scan to its segmentation on the grid of its own file.

A *system* is whatever turns a working-grid volume into class probabilities: `sliding.py` slides a
network over it. `segment.py` brings a scan to the working grid and the answer back; `trained.py`
opens a run for use. This package may use `volumes`, `data`, `models` and `training`'s states.
"""
