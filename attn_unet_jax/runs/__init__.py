"""The folder of a run: its lock, its record, `metrics.csv`, and writers such as TensorBoard."""
