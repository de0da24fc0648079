"""Parameters from elsewhere: from another run, from released PyTorch weights, from VGG-16."""
