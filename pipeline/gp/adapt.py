"""Fast adaptation: one linearized network, many tasks (Maddox et al. 2019, algorithm 1).

Every task is an independent draw from the Gaussian process of the linearized network. The tasks
share its kernel and its hyperparameters; each has its own posterior, in closed form.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.gp.condition import Space, condition
from pipeline.gp.evidence import Evidence
from pipeline.gp.hyperparameters import Hyperparameters, fit_hyperparameters
from pipeline.gp.linearization import Linearization, refuse_nonfinite
from pipeline.gp.regression import (
    LinearizedGP,
    checked_targets,
    refuse_other_width,
    residuals_of,
)
from pipeline.types import InputError, Inputs, batch_size


@dataclass(frozen=True)
class Task:
    """The context points of one task."""

    inputs: Inputs
    targets: Float[Tensor, " n *k"]
    name: str = ""


@dataclass(frozen=True)
class Adaptation:
    """What adaptation gives: the tasks' processes, and what they share."""

    tasks: tuple[LinearizedGP, ...]
    """In the order of the tasks."""
    hyperparameters: Hyperparameters

    def __getitem__(self, name: str) -> LinearizedGP:
        """The process of the task of this name."""
        for gp in self.tasks:
            if gp.name == name:
                return gp
        raise InputError(
            f"no task is named {name!r}; there are {', '.join(gp.name for gp in self.tasks)}."
        )


@torch.inference_mode(False)
def adapt(
    linearization: Linearization,
    tasks: Sequence[Task],
    *,
    hyperparameters: Hyperparameters | None = None,
    outputscale: float | None = None,
    noise_per_task: bool = False,
    space: Space = "auto",
) -> Adaptation:
    """A Gaussian process for every task, at hyperparameters learned on all of them together.

    Given ``hyperparameters``, learned on a source task for example, are used as they are; a given
    ``outputscale`` is kept while the noise is learned. All data are checked before work starts.
    """
    targets = _checked(tasks)
    for task, Y in zip(tasks, targets, strict=True):
        refuse_other_width(linearization, task.inputs, Y)
        refuse_nonfinite(task.inputs)
    found = [linearization(task.inputs) for task in tasks]
    residuals = [residuals_of(rows.offsets, Y) for rows, Y in zip(found, targets, strict=True)]
    if hyperparameters is None:
        evidences = [
            Evidence.of_rows(each.rows, r) for each, r in zip(found, residuals, strict=True)
        ]
        hyperparameters = fit_hyperparameters(
            evidences, outputscale=outputscale, noise_per_task=noise_per_task
        )
    elif len(hyperparameters.noise) not in (1, len(tasks)):
        raise InputError(
            f"the hyperparameters have a noise for each of {len(hyperparameters.noise)} tasks, and "
            f"there are {len(tasks)}. Learn them with one noise for all tasks."
        )
    s = hyperparameters.outputscale
    fitted = []
    for i, (task, rows, r) in enumerate(zip(tasks, found, residuals, strict=True)):
        noise = hyperparameters.noise_of(i)
        posterior = condition(rows.rows, r, s, noise, space=space)
        gp = LinearizedGP(linearization, posterior, noise, targets[i].shape[1])
        fitted.append(replace(gp, converged=hyperparameters.converged, name=task.name))
    return Adaptation(tuple(fitted), hyperparameters)


def _checked(tasks: Sequence[Task]) -> list[Float[Tensor, "n k"]]:
    """Every task's targets; refused where the tasks differ in their number of columns."""
    if not isinstance(tasks, Sequence) or not all(isinstance(task, Task) for task in tasks):
        raise InputError("expected a sequence of tasks: [Task(inputs, targets), …].")
    if not tasks:
        raise InputError("there are no tasks to adapt to.")
    names = [task.name for task in tasks if task.name]
    if len(set(names)) < len(names):
        raise InputError(f"tasks need names of their own; got {', '.join(names)}.")
    targets = [checked_targets(task.targets, batch_size(task.inputs)) for task in tasks]
    widths = {Y.shape[1] for Y in targets}
    if len(widths) > 1:
        listed = ", ".join(
            f"{task.name or i} has {Y.shape[1]}"
            for i, (task, Y) in enumerate(zip(tasks, targets, strict=True))
        )
        raise InputError(f"tasks must have equally many target columns: {listed}.")
    return targets
