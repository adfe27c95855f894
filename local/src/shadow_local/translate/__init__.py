"""The rendered manifests, read without a gap and turned into Envoy's configuration."""
