"""From a scan to its segmentation on the grid of its own file.

A *system* turns a working-grid volume into class probabilities: `sliding.py` slides a network over
it. `segment.py` brings a scan to the working grid and its segmentation back to the scan's own. This
package may use `volumes`, `cases`, `patches` and `runtime`.
"""
