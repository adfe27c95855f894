"""Estimators with their intervals: counts and moments in, intervals out, no state, no I/O.

Two families, and each docstring says which. *Anytime* intervals (confidence sequences) hold at
every look at once, so the gates use only those. *Fixed horizon* intervals hold for one look and
are for description.
"""
