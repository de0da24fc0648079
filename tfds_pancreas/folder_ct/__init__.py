"""A plain folder of labelled scans as records, for own collections that are large."""
