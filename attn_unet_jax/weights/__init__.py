"""Loads parameters from another run, from the released PyTorch weights, or from VGG-16."""
