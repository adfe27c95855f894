"""Compares the primary's and the shadow's answers, and says whether the shadow may replace it."""

__version__ = "0.1.0"
