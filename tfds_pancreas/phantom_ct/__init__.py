"""A procedural abdomen: CT scans of patients who do not exist, drawn and painted from a seed.

`patient` draws who it is and how he lies in the scanner, `anatomy.draw_label_map` the whole label
map, `pancreas` its pancreas, and `phantom_case` makes a record of it. All else comes from
`tfds_pancreas.abdomen`. Only the module phantom_ct_dataset_builder knows TFDS.
"""
