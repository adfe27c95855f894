"""A KServe transformer that forwards each call to its predictor and records it in Postgres."""
