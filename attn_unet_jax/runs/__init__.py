"""The folder of a run: lock, record, `metrics.csv`, writers such as TensorBoard; releases."""
