"""A network as the rest of the package takes it, and the digest of its weights."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.artefact import tensors_digest
from pipeline.models.weights import refuse_nonfinite
from pipeline.types import InputError, Inputs, run_model


@dataclass(frozen=True)
class Network:
    """A module in eval mode, float32, on the CPU: ``module(inputs)`` are logits (n, k).

    Made by :func:`as_network`, which checks and prepares the module.
    """

    module: nn.Module
    head: str
    """Dotted name of the final ``nn.Linear``; its input is the penultimate activations (n, h)."""
    notes: tuple[str, ...] = ()
    """Sentences that the report prints."""
    seen_target_labels: bool = False
    """Whether pretraining used ImageNet's labels, so that targets made of them are no news."""
    untrained_head: bool = False
    """Whether the weights came from a checkpoint that has no such head: nothing to keep."""
    architecture: Mapping[str, Any] = field(default_factory=dict)
    """What determines the function beside the weights; plain JSON values, no paths."""

    @property
    def head_module(self) -> nn.Linear:
        """The final linear layer."""
        return linear_at(self.module, self.head)

    @property
    def width(self) -> int:
        """h, the width of the penultimate layer."""
        return self.head_module.in_features

    @property
    def outputs(self) -> int:
        """k, the number of logits."""
        return self.head_module.out_features

    def state_digest(self) -> str:
        """SHA-256 over name, dtype, shape and bytes of every entry of the state dict, in order."""
        return state_digest(self.module)

    def provenance(self) -> dict[str, Any]:
        """What determines the logits: architecture, the head's place and the weights' digest."""
        return {
            "architecture": dict(self.architecture),
            "head": self.head,
            "state": self.state_digest(),
        }


def as_network(
    module: nn.Module,
    head: str | None = None,
    *,
    architecture: Mapping[str, Any] | None = None,
    notes: tuple[str, ...] = (),
    seen_target_labels: bool = False,
    untrained_head: bool = False,
) -> Network:
    """``module`` itself, set to eval mode, float32 and the CPU, with its head found and checked.

    Without ``head`` the last registered ``nn.Linear`` is taken. Raises :class:`InputError` for a
    head that is no linear layer, and names the first weight that is not finite.
    """
    for name, parameter in module.named_parameters():
        if nn.parameter.is_lazy(parameter):
            raise InputError(
                f"the parameter {name} of {type(module).__name__} has no shape yet. "
                "Run the network once on a batch before passing it."
            )
    refuse_nonfinite(module.state_dict(), f"the network ({type(module).__name__})")
    name = last_linear(module) if head is None else head
    linear_at(module, name)
    return Network(
        module=module.to(device="cpu", dtype=torch.float32).eval(),
        head=name,
        notes=notes,
        seen_target_labels=seen_target_labels,
        untrained_head=untrained_head,
        architecture=architecture or {},
    )


def state_digest(module: nn.Module) -> str:
    """SHA-256 over name, dtype, shape and bytes of every entry of the state dict, in order."""
    return tensors_digest(module.state_dict())


def last_linear(module: nn.Module) -> str:
    """Dotted name of the ``nn.Linear`` registered last."""
    names = [name for name, inner in module.named_modules() if isinstance(inner, nn.Linear)]
    if not names or not names[-1]:
        raise InputError(
            f"{type(module).__name__} needs a final nn.Linear inside it, its head, and has "
            f"{'none' if not names else 'nothing else'}. Wrap it: "
            "nn.Sequential(backbone, nn.Linear(h, k)) with (n, h) penultimate activations."
        )
    return names[-1]


def linear_at(module: nn.Module, name: str) -> nn.Linear:
    """The ``nn.Linear`` of that dotted name; anything else is refused."""
    linears = [n for n, inner in module.named_modules() if isinstance(inner, nn.Linear)]
    if name not in linears:
        found = ", ".join(linears[-5:]) or "none"
        raise InputError(
            f"the head {name!r} is no nn.Linear of {type(module).__name__}. "
            f"Its last linear layers: {found}."
        )
    return module.get_submodule(name)  # type: ignore[return-value]


def with_module(network: Network, module: nn.Module, **changes: Any) -> Network:
    """The same record around another module, with some of its facts changed."""
    facts = {name: getattr(network, name) for name in network.__dataclass_fields__}
    return Network(**{**facts, **changes, "module": module})


def copied(network: Network) -> Network:
    """A deep copy whose weights may be changed without touching the first."""
    return with_module(network, copy.deepcopy(network.module))


def check_forward(network: Network, inputs: Inputs, *, pooled: bool = True) -> None:
    """Raise :class:`InputError` unless the head's output on ``inputs`` is the network's own.

    A softmax after the head, a head used twice, or a linear layer that is not the last would give
    penultimate activations that do not belong to the logits. Without ``pooled`` the head may see
    every position (n, t, h), if the network returns one of them.
    """
    shape, result, logits = _run_with_head(network, inputs)
    if len(shape) != 2 and pooled:
        raise InputError(
            f"the head {network.head!r} was given {tuple(shape)}, expected penultimate activations "
            "(n, h). Pool the positions before it."
        )
    rows = result.flatten(1, -2) if len(shape) > 2 else result.unsqueeze(1)
    returned = logits.unsqueeze(1)
    if logits.ndim != 2 or returned.shape[::2] != rows.shape[::2]:
        found = f"returns {tuple(logits.shape)}"
    elif bool(((rows == returned) | (rows.isnan() & returned.isnan())).all(2).any(1).all()):
        return
    else:
        found = "returns other numbers"
    raise InputError(
        f"the network's output is not that of its head {network.head!r}, {tuple(result.shape)}: it "
        f"{found}. It must return the raw logits (n, k), with nothing after the head."
    )


def _run_with_head(network: Network, inputs: Inputs) -> tuple[torch.Size, Tensor, Tensor]:
    """Shape of what the head was given, what it returned, and what the network returned."""
    calls: list[tuple[torch.Size, Tensor]] = []
    handle = network.head_module.register_forward_hook(
        lambda _, arguments, result: calls.append((arguments[0].shape, result.clone()))
    )
    try:
        with torch.no_grad():
            logits = run_model(network.module, inputs)
    except InputError:
        raise
    except (RuntimeError, TypeError, IndexError, ValueError) as error:
        raise InputError(f"the network does not run on {_described(inputs)}: {error}") from error
    finally:
        handle.remove()
    if len(calls) != 1:
        raise InputError(
            f"the head {network.head!r} ran {len(calls)} times in one forward pass, expected once."
        )
    return *calls[0], logits


def _described(inputs: Inputs) -> str:
    if isinstance(inputs, Tensor):
        return f"a batch {tuple(inputs.shape)}"
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in inputs.items())
