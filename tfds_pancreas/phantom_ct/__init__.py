"""A procedural abdomen: CT scans of patients who do not exist, drawn and painted from a seed.

`anatomy.label_map` draws a label map (patient, canvas and the organs in trunk, viscera, pancreas
and bowel); `paint.paint_ct` paints a CT scan over it, or over any label map (tissues, hollow).
The two know nothing of each other but the names of the organs. Only the module
phantom_ct_dataset_builder knows TFDS.
"""
