"""From files or records to cases on the working grid.

`dataset.py` reads cases from a folder or from records, `folds.py` assigns them to training,
validation and test, and `fold.py` opens one fold. `prepare.py` brings a case to the working grid,
`cache.py` stores it on disk, `boxes.py` restricts it to a box, `sparse.py` drops labels,
`foreground.py` lists its foreground voxels, and `working_cases.py` combines these steps.
`target.py` turns labels into boundaries. The package may use `volumes`, `labels`, `runtime` and
`tfds_pancreas`; it knows nothing of patches, networks or flags.
"""
