"""entk: empirical-NTK features of pretrained networks and kernel ridge regression on them."""

__version__ = "0.1.0"
