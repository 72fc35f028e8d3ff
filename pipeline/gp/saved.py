"""A fitted process in one folder, to predict elsewhere without its training data.

    FOLDER/
      provenance.json         outputscale, noise, mean function, output, sketch, SHA-256 of all
      posterior.safetensors   the Gaussian over θ′, and the kept parameters
      network.safetensors     the network's weights; its architecture is the caller's

What is saved is the posterior of θ′: of a process in function space with one direction a training
row, in parameter space with its p×p precision. Classifiers are saved in the same way.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.artefact import (
    FILES,
    PROVENANCE,
    CorruptArtefactError,
    digest,
    new_artefact,
    open_artefact,
    tensors_digest,
)
from pipeline.gp.classification import LinearizedClassifier
from pipeline.gp.linearization import Linearization
from pipeline.gp.regression import LinearizedGP
from pipeline.gp.saved_posterior import posterior_of, posterior_tensors
from pipeline.jacobian.checks import refuse_no_network
from pipeline.types import InputError

FORMAT = 2
"""Raised when files of older versions can no longer be read."""
POSTERIOR, NETWORK = "posterior.safetensors", "network.safetensors"
VALUES, CLASSES = "values", "classes"
LOADERS = {VALUES: "load_gp", CLASSES: "load_classifier"}


@dataclass(frozen=True)
class SavedSketch:
    """The kept parameters of a saved process, whatever sketch had chosen them."""

    indices: Int[Tensor, " p"]
    column_weights: Float[Tensor, " p"]
    kind: str = "saved"

    @property
    def size(self) -> int:
        """p"""
        return len(self.indices)


def save_gp(gp: LinearizedGP | LinearizedClassifier, folder: str | Path) -> None:
    """Write a process; another that stood in the folder before is replaced when all is written.

    Refused for processes known by products only (give them fast variances first), for sketches
    and outputs that are functions, and for a folder that holds something else.
    """
    if not isinstance(gp, LinearizedGP | LinearizedClassifier):
        raise InputError(
            f"expected a fitted process or classifier, got a {type(gp).__name__}. Of an "
            "adaptation, save its tasks one by one."
        )
    _refuse_foreign(Path(folder))
    linearization = gp.linearization
    if not isinstance(linearization.output, int | str):
        raise InputError("a process with a function as its output cannot be saved; name one.")
    tensors, facts = posterior_tensors(gp.posterior)
    sketch = linearization.sketch
    if sketch is not None:
        if not hasattr(sketch, "indices"):
            raise InputError(f"a process on a {sketch.kind} sketch cannot be saved.")
        tensors["indices"] = sketch.indices
        tensors["column_weights"] = sketch.column_weights
    files = {POSTERIOR: _apart(tensors), NETWORK: _apart(linearization.model.state_dict())}
    provenance: dict[str, Any] = {
        "format": FORMAT,
        "converged": gp.converged,
        "output": linearization.output,
        "mean": linearization.mean,
        "seed": linearization.seed,
        "compute_dtype": linearization.compute_dtype,
        "sha256": {name: _sha256(content) for name, content in files.items()},
        **facts,
        **_predicted(gp),
    }
    provenance["sha256"][PROVENANCE] = _facts_sha256(provenance)
    with new_artefact(Path(folder), provenance) as partial:
        for name, content in files.items():
            save_file(content, partial / name)


def load_gp(folder: str | Path, model: nn.Module) -> LinearizedGP:
    """The process in a folder. ``model`` is of the network's architecture; it gets the weights."""
    facts, linearization, posterior = _opened(Path(folder), model, VALUES)
    return LinearizedGP(
        linearization,
        posterior,
        facts["noise"],
        facts["targets"],
        converged=facts["converged"],
        name=facts["name"],
    )


def load_classifier(folder: str | Path, model: nn.Module) -> LinearizedClassifier:
    """The classifier in a folder. ``model`` as for :func:`load_gp`."""
    facts, linearization, posterior = _opened(Path(folder), model, CLASSES)
    return LinearizedClassifier(linearization, posterior, facts["converged"])


def _predicted(gp: LinearizedGP | LinearizedClassifier) -> dict[str, Any]:
    if isinstance(gp, LinearizedClassifier):
        return {"predicts": CLASSES}
    return {"predicts": VALUES, "name": gp.name, "noise": gp.noise, "targets": gp.targets}


def _refuse_foreign(folder: Path) -> None:
    """Raise :class:`InputError` for a file, and for a folder of anything but a saved process."""
    own = {PROVENANCE, FILES, POSTERIOR, NETWORK}
    if folder.is_file() or (folder.is_dir() and {f.name for f in folder.iterdir()} - own):
        raise InputError(
            f"{folder} holds no saved process, and is not overwritten. Name a new one."
        )


def _opened(folder: Path, model: nn.Module, predicts: str) -> tuple[Any, Linearization, Any]:
    """What is known of a saved process, the network with its weights, and the posterior."""
    refuse_no_network(model)
    facts = open_artefact(folder)
    if facts.get("format") != FORMAT:
        raise InputError(f"{folder} has format {facts.get('format')}, this version reads {FORMAT}.")
    # Folders of earlier versions have no digest of their facts.
    if facts["sha256"].get(PROVENANCE, _facts_sha256(facts)) != _facts_sha256(facts):
        raise CorruptArtefactError(f"{folder / PROVENANCE} is damaged. Save the process again.")
    found = facts.get("predicts", VALUES)
    if found != predicts:
        raise InputError(f"{folder} predicts {found}: load it with {LOADERS[found]}.")
    tensors, state = (_loaded(folder / name, facts) for name in (POSTERIOR, NETWORK))
    try:
        # Whole or not at all: the loading of torch stops half-way.
        _refuse_other_shapes(model, state)
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{folder} is of another architecture: {error}") from None
    sketch = None
    if "indices" in tensors:
        sketch = SavedSketch(tensors["indices"], tensors["column_weights"])
    linearization = Linearization(
        model.eval(),
        sketch,
        output=facts["output"],
        mean=facts["mean"],
        seed=facts["seed"],
        compute_dtype=facts.get("compute_dtype"),
    )
    near = {name: tensor.to(linearization.device) for name, tensor in tensors.items()}
    return facts, linearization, posterior_of(near, facts)


def _refuse_other_shapes(model: nn.Module, state: dict[str, Tensor]) -> None:
    own = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    saved = {name: tuple(t.shape) for name, t in state.items()}
    for name in [*saved, *own]:
        if own.get(name) != saved.get(name):
            raise RuntimeError(
                f"{name} is {saved.get(name, 'absent')} in it and {own.get(name, 'absent')} in the "
                "network given."
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


def _facts_sha256(facts: dict[str, Any]) -> str:
    return digest({name: fact for name, fact in facts.items() if name != "sha256"})


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU: safetensors refuses tensors that share memory."""
    return {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}
