"""A fitted process in one folder, to predict elsewhere without its training data.

    FOLDER/
      provenance.json         outputscale, noise, mean function, output, sketch, SHA-256 of tensors
      posterior.safetensors   the Gaussian over θ′, and the kept parameters
      network.safetensors     the network's weights; its architecture is the caller's

What is saved is the posterior of θ′: of a process in function space with one direction a training
row, in parameter space with its p×p precision.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.artefact import (
    CorruptArtefactError,
    new_artefact,
    open_artefact,
    tensors_digest,
)
from pipeline.gp.function_space import FunctionSpace
from pipeline.gp.linearization import Linearization
from pipeline.gp.parameter_space import ParameterSpace
from pipeline.gp.regression import LinearizedGP
from pipeline.gp.weight_posterior import WeightPosterior, exact_weights
from pipeline.types import InputError

FORMAT = 2
"""Raised when files of older versions can no longer be read."""
POSTERIOR, NETWORK = "posterior.safetensors", "network.safetensors"


@dataclass(frozen=True)
class SavedSketch:
    """The kept parameters of a saved process, whatever sketch had chosen them."""

    indices: Int[Tensor, " p"]
    column_weights: Float[Tensor, " p"]
    kind: str = "saved"


def save_gp(gp: LinearizedGP, folder: str | Path) -> None:
    """Write a process; what stood in the folder before is replaced when all is written.

    Refused for processes known by products only (give them fast variances first), and for sketches
    and outputs that are functions.
    """
    linearization = gp.linearization
    if not isinstance(linearization.output, int | str):
        raise InputError("a process with a function as its output cannot be saved; name one.")
    tensors, facts = _posterior_tensors(gp.posterior)
    sketch = linearization.sketch
    if sketch is not None:
        if not hasattr(sketch, "indices"):
            raise InputError(f"a process on a {sketch.kind} sketch cannot be saved.")
        tensors["indices"] = sketch.indices
        tensors["column_weights"] = sketch.column_weights
    files = {POSTERIOR: _apart(tensors), NETWORK: _apart(linearization.model.state_dict())}
    provenance = {
        "format": FORMAT,
        "name": gp.name,
        "noise": gp.noise,
        "targets": gp.targets,
        "converged": gp.converged,
        "output": linearization.output,
        "mean": linearization.mean,
        "seed": linearization.seed,
        "sha256": {name: _sha256(content) for name, content in files.items()},
        **facts,
    }
    with new_artefact(Path(folder), provenance) as partial:
        for name, content in files.items():
            save_file(content, partial / name)


def load_gp(folder: str | Path, model: nn.Module) -> LinearizedGP:
    """The process in a folder. ``model`` is of the network's architecture; it gets the weights."""
    folder = Path(folder)
    facts = open_artefact(folder)
    if facts.get("format") != FORMAT:
        raise InputError(f"{folder} has format {facts.get('format')}, this version reads {FORMAT}.")
    state = _loaded(folder / NETWORK, facts)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{folder} is of another architecture: {error}") from None
    tensors = _loaded(folder / POSTERIOR, facts)
    sketch = None
    if "indices" in tensors:
        sketch = SavedSketch(tensors["indices"], tensors["column_weights"])
    linearization = Linearization(
        model.eval(), sketch, output=facts["output"], mean=facts["mean"], seed=facts["seed"]
    )
    return LinearizedGP(
        linearization,
        _posterior_of(tensors, facts),
        facts["noise"],
        facts["targets"],
        converged=facts["converged"],
        name=facts["name"],
    )


def _loaded(path: Path, facts: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors that were saved; any others are refused."""
    try:
        found = load_file(path)
    except (SafetensorError, FileNotFoundError):
        found = {}
    if _sha256(found) != facts["sha256"][path.name]:
        raise CorruptArtefactError(f"{path} is damaged. Save the process again.")
    return found


def _sha256(tensors: dict[str, Tensor]) -> str:
    # Files have an order of their own.
    return tensors_digest(dict(sorted(tensors.items())))


def _posterior_tensors(posterior: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if isinstance(posterior, FunctionSpace):
        posterior = exact_weights(posterior)
    if isinstance(posterior, WeightPosterior):
        tensors = {"mean_weights": posterior.mean_weights, "directions": posterior.directions}
        return tensors, {"kind": "weights", "outputscale": posterior.outputscale}
    if isinstance(posterior, ParameterSpace):
        tensors = {name: getattr(posterior, name) for name in ("precision", "moment", "factor")}
        facts = {"outputscale": posterior.outputscale, "fit": posterior.fit}
        return tensors, {"kind": "parameter_space", **facts}
    raise InputError(
        "this process is known by products with its training data only. Save "
        "gp.with_fast_variances(rank), which needs them no more."
    )


def _posterior_of(tensors: dict[str, Tensor], facts: dict[str, Any]) -> Any:
    s = facts["outputscale"]
    if facts["kind"] == "weights":
        return WeightPosterior(tensors["mean_weights"], s, tensors["directions"])
    precision, moment, factor = (tensors[name] for name in ("precision", "moment", "factor"))
    return ParameterSpace(precision, moment, factor, s, facts["fit"])


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU: safetensors refuses tensors that share memory."""
    return {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}
