"""Estimators with their intervals: counts and moments in, intervals out, no state, no I/O.

Two families, and each docstring says which. *Anytime* intervals (confidence sequences) hold at
every look at once, so the gates use only those. *Fixed horizon* intervals hold for one look and
are for description.

scipy is asked by its full name, `scipy.special.betaln`: `special` is imported at the first such
call. That takes a fifth of a start, and what only checks, sends or keeps calls never needs it.
"""
