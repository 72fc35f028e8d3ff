"""Kernel ridge regression: one right answer, many roads.

``KernelRidge`` fits one ridge; ``ridge_path.fit_path`` finds it on a validation split;
``early_stopping`` stops Nesterov's method there.
"""

from pipeline.solvers.kernel_ridge import KernelRidge

__all__ = ["KernelRidge"]
