"""What callers reach, where it differs from KServe's own."""
