"""The kernel machine of a network in three lines, with scikit-learn's conventions and no cluster.

    from pipeline.estimator import EntkClassifier

    machine = EntkClassifier(network, sketch_size=100_000).fit(X, y)
    machine.predict(X_new), machine.predict_proba(X_new)

Features are computed batch by batch on a copy of the network with a new random head, and regressed
on by kernel ridge regression. What is kept is the solution's weights θ in feature space, so that a
prediction is φ(x)·θ and needs no training sample.
"""

from pipeline.estimator.classifier import EntkClassifier
from pipeline.estimator.regressor import EntkRegressor

__all__ = ["EntkClassifier", "EntkRegressor"]
