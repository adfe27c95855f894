"""The shadow deployment on one machine, made from the rendered manifests."""


class Explained(Exception):
    """Something outside this program went wrong; the message says what, where and what to do."""
