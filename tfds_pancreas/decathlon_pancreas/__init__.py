"""Task07 of the Medical Segmentation Decathlon: pancreas and its masses on portal-venous CT."""
