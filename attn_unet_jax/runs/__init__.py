"""The folder of a run: its lock, its record, `metrics.csv` and TensorBoard events."""
