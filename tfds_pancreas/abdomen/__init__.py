"""An abdomen that is drawn and painted: what the synthetic data sets share.

`canvas` is a label map that fills up with organs. `trunk`, `viscera` and `bowel` draw on it, in
millimetres of the patient's own frame; `organs` names its values. `paint.paint_ct` makes a CT scan
of any label map, with the help of `tissues`, `hollow` and `noise`. Drawing and painting share only
the names of the organs. Nothing here knows TFDS or JAX.
"""
