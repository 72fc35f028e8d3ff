"""Classification by regression on one-hot targets."""

from typing import Any, Self

from jaxtyping import Float
from numpy import ndarray
from scipy.special import softmax
from sklearn.base import ClassifierMixin
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.validation import check_is_fitted

from pipeline.estimator.inputs import as_inputs, as_labels, refuse_other_length
from pipeline.estimator.machine import Machine, leave_one_out_scores
from pipeline.metrics.calibration import fit_temperature
from pipeline.solvers.select import accuracy
from pipeline.solvers.targets import class_targets
from pipeline.types import InputError


class EntkClassifier(ClassifierMixin, Machine):
    """Kernel ridge classification on a network's sketched gradients.

    ``model`` ends in a linear layer; a random one-output head is put on a copy of it unless
    ``head="keep"``. ``ridge`` is relative to mean(diag K): one value, a list to choose from, or
    "loo", a search, both by leave-one-out in closed form. ``sketch_size`` None keeps 100,000
    parameters, or all of a smaller network.

    After ``fit``: ``classes_``; ``theta_`` (p, k) and ``intercept_`` (k,), the solution in feature
    space; ``featurizer_``, from a batch of tensors to features; ``ridge_``, ``certificate_``,
    ``temperature_``, ``n_parameters_``.
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Fit on samples X (n, …), tensors, an array or a mapping of tensors, and labels (n,)."""
        inputs = as_inputs(self, X, fitting=True)
        labels = as_labels(y)
        refuse_other_length(inputs, labels)
        encoder = LabelEncoder().fit(labels)
        self.classes_ = encoder.classes_
        if len(self.classes_) < 2:
            raise InputError(
                f"classification needs two classes or more, y has one class: {self.classes_[0]!r}."
            )
        numbers = encoder.transform(labels)
        targets = class_targets(numbers, len(self.classes_))
        path, K = self._fit(inputs, targets, accuracy(numbers, targets.mean))
        self.temperature_ = fit_temperature(leave_one_out_scores(K, targets, path), numbers)
        return self

    def decision_function(self, X: Any) -> Float[ndarray, " m *k"]:
        """Ridge scores (m, k), a column a class; of two classes the second's lead (m,)."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> ndarray:
        """The class of the largest score."""
        check_is_fitted(self, "theta_")
        predicted: ndarray = self.classes_[self._scores(X).argmax(axis=1)]
        return predicted

    def predict_proba(self, X: Any) -> Float[ndarray, "m k"]:
        """softmax(scores / T), T fitted on leave-one-out scores."""
        check_is_fitted(self, "temperature_")
        probabilities: ndarray = softmax(self._scores(X) / self.temperature_, axis=1)
        return probabilities
