"""CT scans painted on label maps of real abdomens: real shapes, synthetic images.

`names` says which organ a value is, `maps` reads and splits the maps, `warp` deforms one, `frame`
finds the patient in it, `complete` draws what it lacks, and `painting` makes a scan of it all.
Only the module painted_ct_dataset_builder knows TFDS.
"""
