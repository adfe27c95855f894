"""The delivery process: moves records from the spool folder to Postgres, whatever it takes.

It imports neither kserve nor the server, so that it starts fast and stays small.
"""
