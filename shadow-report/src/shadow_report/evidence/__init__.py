"""The tables as evidence: SQL in, plain values out. The only package that knows of Postgres."""
