"""Numerical building blocks of the networks: convolution forms, dilation, resizing."""
