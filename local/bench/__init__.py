"""Measurements of the deployment against stock KServe, side by side in one run: `make bench`."""
