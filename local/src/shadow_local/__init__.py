"""The shadow deployment on one machine, made from the rendered manifests."""
