"""Gaussian processes from linearized networks (Maddox et al. 2019, 2021).

A network's Jacobian at θ is the feature map of a Gaussian process: f(x) = μ(x) + J(x)θ′ with
θ′ ~ N(0, sI). New tasks are adapted to in closed form, and every prediction has a variance.

    linearization = Linearization(network, mean="network")
    adaptation = adapt(linearization, [Task(x_1, y_1), Task(x_2, y_2)])
    adaptation.tasks[0].predict(x_new).mean

:class:`EmpiricalNTK` is the kernel for GPyTorch; everything else here needs no GPyTorch.
"""

from typing import TYPE_CHECKING, Any

from pipeline.gp.adapt import Task, adapt
from pipeline.gp.classification import LinearizedClassifier
from pipeline.gp.linearization import Linearization
from pipeline.gp.regression import LinearizedGP
from pipeline.gp.saved import load_classifier, load_gp, save_gp
from pipeline.jacobian import FisherOperator, JacobianOperator

if TYPE_CHECKING:
    from pipeline.gp.kernel import EmpiricalNTK
    from pipeline.gp.mean import LinearizationMean

__all__ = [
    "EmpiricalNTK",
    "FisherOperator",
    "JacobianOperator",
    "Linearization",
    "LinearizationMean",
    "LinearizedClassifier",
    "LinearizedGP",
    "Task",
    "adapt",
    "load_classifier",
    "load_gp",
    "save_gp",
]


def __getattr__(name: str) -> Any:
    # GPyTorch is imported with the kernel that needs it, not before.
    if name == "EmpiricalNTK":
        from pipeline.gp.kernel import EmpiricalNTK

        return EmpiricalNTK
    if name == "LinearizationMean":
        from pipeline.gp.mean import LinearizationMean

        return LinearizationMean
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
