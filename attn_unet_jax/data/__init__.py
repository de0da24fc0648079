"""From files or records to patches on the accelerator.

`dataset.py` reads cases, `labels.py` gives their values a meaning, `folds.py` says which case is
trained on, `prepare.py` brings a case to the working grid, `sparse.py` forgets labels,
`schedule.py` says which patch is cut when, `resident.py` cuts it, and `patches.py` makes network
input of it. This package may use `volumes`, `augment`, `tfds_pancreas` and the value `UNLABELLED`
of `losses`; it knows nothing of networks or flags.
"""
