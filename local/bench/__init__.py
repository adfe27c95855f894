"""Measurements of the deployment against stock KServe, side by side in one run: `make bench`."""

import os

# Everything that is measured is on this machine, where no proxy leads to.
os.environ |= dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1")
