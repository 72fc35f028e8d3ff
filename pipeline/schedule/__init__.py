"""Re-featurization on schedule: every model of a registry on every benchmark, only what is new."""
