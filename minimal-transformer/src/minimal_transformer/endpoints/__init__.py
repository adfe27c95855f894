"""The endpoints that differ from KServe's own."""
