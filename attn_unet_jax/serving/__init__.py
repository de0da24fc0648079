"""Answers HTTP requests with a run that is opened once: scans in, masks and JSON out."""
