"""Scores predicted masks against reference masks on the native grid, and compares runs.

`overlap` counts voxels (DSC, IoU, precision, recall, volume); `surface` measures how far surfaces
are apart, `surface_scores` scores that (ASSD, HD, NSD); `calibration` measures the ECE. `summary`
summarises scores over cases, with `intervals` of means. `choose_steps` chooses the steps after the
network. `scoring` segments and scores cases and writes the scores. `compared_runs`, `comparison`,
`paired_tests` and `ranks` compare runs, `comparison_text` and `comparison_latex` write the table.
The rule for empty masks is given in `overlap`.
"""
