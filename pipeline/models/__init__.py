"""Pretrained networks: one file a family, each with its options and ``build(options)``."""
