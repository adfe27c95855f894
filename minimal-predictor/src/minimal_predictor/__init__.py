"""The example model: a KServe predictor that multiplies what it gets by FACTOR."""
