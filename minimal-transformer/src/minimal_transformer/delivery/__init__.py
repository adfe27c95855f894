"""The delivery process: moves records from the spool to Postgres, past outages and bad rows.

It imports neither kserve nor the server, so that it starts fast and stays small.
"""
