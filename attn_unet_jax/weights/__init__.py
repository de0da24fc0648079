"""Parameters from another run, from a release, from the released PyTorch weights, from VGG-16."""
