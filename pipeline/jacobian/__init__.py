"""Per-sample Jacobian features: every sample's gradient at the price of the batch's."""

from pipeline.jacobian.call import Call, Gradient, rule
from pipeline.jacobian.extractor import FeatureExtractor, Features, jacobian_features
from pipeline.jacobian.selection import Selection

__all__ = [
    "Call",
    "FeatureExtractor",
    "Features",
    "Gradient",
    "Selection",
    "jacobian_features",
    "rule",
]
