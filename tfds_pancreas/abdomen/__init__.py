"""An abdomen drawn and painted: what the synthetic data sets share.

`canvas` is a label map being drawn; `trunk`, `viscera` and `bowel` draw on it, in millimetres of
the patient's own frame; `organs` names its values. `paint.paint_ct` makes a CT scan of any label
map (`tissues`, `hollow`, `noise`). Drawing and painting know nothing of each other but the names of
the organs. Nothing here knows TFDS or JAX.
"""
