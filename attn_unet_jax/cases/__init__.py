"""From files or records to patches on the accelerator.

`dataset.py` reads cases, `labels.py` gives their values a meaning, `folds.py` says which case is
trained on, `prepare.py` brings a case to the working grid, `prepared.py` keeps it on disk,
`boxes.py` says which part of it counts, `sparse.py` forgets labels, and `cases.py` puts these in a
row. `schedule.py` says which patch is cut when; `resident.py` cuts it inside the compiled step,
`cutter.py` and `streaming.py` on the host, and `source.py` chooses between them. `patches.py` makes
network input of what was cut. This package may use `volumes`, `augment`, `tfds_pancreas` and the
value `UNLABELLED` of `losses`; it knows nothing of networks or flags.
"""
