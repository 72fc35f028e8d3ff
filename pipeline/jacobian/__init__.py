"""Per-sample Jacobian features: every sample's gradient at the price of the batch's."""

from pipeline.jacobian.call import Call, Gradient, rule
from pipeline.jacobian.checks import NonFiniteSamplesError
from pipeline.jacobian.extractor import FeatureExtractor, Features, jacobian_features
from pipeline.jacobian.finite_difference import FiniteDifferenceFisher
from pipeline.jacobian.fisher import FisherOperator
from pipeline.jacobian.operators import JacobianOperator
from pipeline.jacobian.selection import Selection

__all__ = [
    "Call",
    "FeatureExtractor",
    "Features",
    "FiniteDifferenceFisher",
    "FisherOperator",
    "Gradient",
    "JacobianOperator",
    "NonFiniteSamplesError",
    "Selection",
    "jacobian_features",
    "rule",
]
