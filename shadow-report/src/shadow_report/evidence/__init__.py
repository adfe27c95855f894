"""The tables as evidence: SQL in, plain values out."""
