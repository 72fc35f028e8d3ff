"""How good predictions are, and how sure we are of it.

| module | what is in it |
|---|---|
| ``classification`` | accuracy, balanced accuracy, NLL, Brier, and all metrics of a split at once |
| ``calibration`` | temperature, expected calibration error, reliability diagrams |
| ``regression`` | squared error, NLL, interval coverage |
| ``groups`` | accuracy by domain, and the worst |
| ``ranking`` | area under the ROC curve |
| ``errors``, ``bootstrap`` | standard errors; confidence intervals, paired between methods |
| ``robustness`` | OOD over ID accuracy on the probit line |
| ``agreement`` | same predictions, same mistakes |
"""

from pipeline.metrics.calibration import (
    expected_calibration_error,
    fit_temperature,
    log_probabilities,
    reliability,
)
from pipeline.metrics.classification import (
    accuracy,
    balanced_accuracy,
    brier,
    classification_metrics,
    nll,
    sample_brier,
    sample_nll,
)
from pipeline.metrics.errors import accuracy_stderr, mean_stderr
from pipeline.metrics.regression import fit_variance, regression_metrics

__all__ = [
    "accuracy",
    "accuracy_stderr",
    "balanced_accuracy",
    "brier",
    "classification_metrics",
    "expected_calibration_error",
    "fit_temperature",
    "fit_variance",
    "log_probabilities",
    "mean_stderr",
    "nll",
    "regression_metrics",
    "reliability",
    "sample_brier",
    "sample_nll",
]
