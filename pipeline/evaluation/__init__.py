"""From predictions to metrics and to comparisons of methods."""

from pipeline.evaluation.predictions import Predictions, read_predictions, write_predictions
from pipeline.evaluation.scores import METHOD_ORDER, evaluate

__all__ = ["METHOD_ORDER", "Predictions", "evaluate", "read_predictions", "write_predictions"]
