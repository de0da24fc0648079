"""CT scans painted on label maps of real abdomens: real shapes, synthetic images.

`organ_names` says which organ a value is, `label_maps` reads and splits the maps, `map_deformation`
deforms one, `patient_frame` finds the patient in it, `map_completion` draws what it lacks,
`painting` makes a scan of it all, and `painted_case` a case of that. Only the module
painted_ct_dataset_builder knows TFDS.
"""
