"""A run's folder: who may write into it, its record, `metrics.csv` and TensorBoard's events."""
