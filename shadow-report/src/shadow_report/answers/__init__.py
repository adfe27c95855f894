"""What the two sides answered: parsed, brought into one form, and compared path by path.

Pure: bodies and values in, tallies out. Nothing here knows of Postgres or of a terminal.
"""
