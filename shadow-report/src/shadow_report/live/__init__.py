"""A verdict that is always on: tallies that are kept, and what is answered from them."""
