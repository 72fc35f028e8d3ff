"""Sketches: which part or projection of every per-sample gradient becomes the features."""

from pipeline.sketch.make import build_sketch, make_sketch

__all__ = ["build_sketch", "make_sketch"]
