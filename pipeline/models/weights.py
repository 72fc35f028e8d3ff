"""Checkpoints into modules: without running code, and with every mismatch named."""

import logging
import pickle
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.artefact import UNPICKLING_ERRORS
from pipeline.types import InputError

logger = logging.getLogger(__name__)

WRAPPING_KEYS = ("state_dict", "model_state_dict", "model", "net", "network")
"""Where training scripts put the weights, beside the epoch and the optimizer."""

WRAPPING_PREFIXES = ("module.", "_orig_mod.")
"""What ``DataParallel`` and ``torch.compile`` put before every name."""

NAMES_SHOWN = 6

WHERE = "model.weights"
"""Config path of the checkpoint."""

CAUSES = ("GLOBAL", "class", "Unsupported operand")
"""What torch's lines hold that say which part of a pickle it refuses."""


def load_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """Name → tensor of a checkpoint, safetensors or torch, freed of wrappers.

    Torch files are read with ``weights_only``, so that no code in them runs. Raises
    :class:`InputError` for a missing, damaged or unsafe file, or one without named tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no weights file at {path}. Check the path, or download it first.", WHERE)
    loaded = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    state = _unwrapped(loaded, path)
    return _without_prefixes({k: v for k, v in state.items() if isinstance(v, Tensor)})


def load_into(
    module: nn.Module,
    state: Mapping[str, Tensor],
    path: Path | str,
    *,
    ignore: Collection[str] = (),
    keep: Collection[str] = (),
) -> None:
    """Copy ``state`` into ``module`` in place, floating-point entries as float32.

    Names starting with one of ``ignore`` are dropped from the checkpoint; module entries starting
    with one of ``keep`` may be missing and stay as they are. Anything else missing or unexpected,
    a wrong shape, a dtype that is no number's, or a weight that is not finite raises
    :class:`InputError` and leaves the module untouched.
    """
    given = {name: t for name, t in state.items() if not name.startswith(tuple(ignore))}
    own = module.state_dict()
    _refuse_other_names(given, own, tuple(keep), path)
    _refuse_other_shapes(given, own, path)
    refuse_nonfinite(given, str(path), WHERE)
    module.load_state_dict(
        {name: given[name].to(own[name].dtype) for name in own if name in given}, strict=False
    )


def outputs_in(state: Mapping[str, Tensor], name: str, default: int) -> int:
    """Rows of the head's weight ``name`` (k, h) in a checkpoint, or ``default`` without one."""
    weight = state.get(name)
    return default if weight is None or weight.ndim != 2 else weight.shape[0]


def refuse_nonfinite(state: Mapping[str, Tensor], origin: str, where: str | None = None) -> None:
    """Raise :class:`InputError` naming the entries that hold NaN or infinity."""
    bad = [
        name
        for name, tensor in state.items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]
    if bad:
        raise InputError(
            f"{origin} holds NaN or infinite weights in {shown(bad)}. "
            "Its training diverged or the file is damaged: use another checkpoint.",
            where,
        )


def shown(names: Collection[str]) -> str:
    """The first names, and how many more there are."""
    listed = ", ".join(list(names)[:NAMES_SHOWN])
    more = len(names) - NAMES_SHOWN
    return f"{listed} and {more} more" if more > 0 else listed


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path, device="cpu")
    except SafetensorError as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}", WHERE) from None


def _read_torch(path: Path) -> Any:
    _refuse_compressed(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()
        # The first line advises to load without `weights_only`: the one that names the cause tells.
        unsafe = [line.strip() for line in reason if any(word in line for word in CAUSES)]
        raise InputError(
            f"{path} is refused: it is no plain checkpoint of tensors, and loading it could run "
            f"code ({(unsafe or reason or ['no details'])[0][:200]}). If you trust its origin, "
            "load it yourself once and save model.state_dict() alone with safetensors.",
            WHERE,
        ) from None
    except UNPICKLING_ERRORS as error:
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} is not a readable torch checkpoint: {detail}", WHERE) from None


def _refuse_compressed(path: Path) -> None:
    """Torch never compresses; a file that unfolds to more than it holds is none of its own."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unfolded = sum(info.file_size for info in archive.infolist())
    size = path.stat().st_size
    if unfolded > size:
        raise InputError(
            f"{path} is refused: its {size:,} bytes unfold to {unfolded:,}, and torch compresses "
            "nothing: it may be a decompression bomb. Save the checkpoint anew.",
            WHERE,
        )


def _unwrapped(loaded: Any, path: Path) -> Mapping[str, Any]:
    while isinstance(loaded, Mapping):
        if any(isinstance(value, Tensor) for value in loaded.values()):
            return loaded
        inner = next((loaded[key] for key in WRAPPING_KEYS if key in loaded), None)
        if inner is None:
            keys = shown([str(key) for key in loaded]) or "no keys"
            raise InputError(
                f"{path} holds no tensors under names; found {keys}. Expected a state dict, at "
                f"the top or under one of: {', '.join(WRAPPING_KEYS)}.",
                WHERE,
            )
        loaded = inner
    raise InputError(f"{path} holds a {type(loaded).__name__}, expected a state dict.", WHERE)


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in WRAPPING_PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            return _without_prefixes({n.removeprefix(prefix): t for n, t in state.items()})
    return state


def _refuse_other_names(
    given: Mapping[str, Tensor], own: Mapping[str, Tensor], keep: tuple[str, ...], path: Path | str
) -> None:
    # Checkpoints from before torch 0.4.1 lack the batch counter; eval mode never reads it.
    missing = [
        name
        for name in own
        if name not in given
        and not name.startswith(keep)
        and not name.endswith("num_batches_tracked")
    ]
    unexpected = [name for name in given if name not in own]
    if missing or unexpected:
        raise InputError(
            f"{path} does not fit this architecture. "
            f"Missing in the file ({len(missing)}): {shown(missing) or 'none'}. "
            f"Unexpected in the file ({len(unexpected)}): {shown(unexpected) or 'none'}. "
            "Check model.kind, its depth and its variant.",
            WHERE,
        )


def _refuse_other_shapes(
    given: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path | str
) -> None:
    wrong = [
        f"{name} is {tuple(tensor.shape)}, expected {tuple(own[name].shape)}"
        for name, tensor in given.items()
        if tensor.shape != own[name].shape
    ]
    if wrong:
        raise InputError(f"{path} does not fit this architecture: {shown(wrong)}.", WHERE)
    integers = [
        f"{name} is {tensor.dtype}"
        for name, tensor in given.items()
        if own[name].is_floating_point() and not tensor.is_floating_point()
    ]
    if integers:
        raise InputError(
            f"{path} holds weights that are no floating-point numbers: {shown(integers)}. "
            "Quantized checkpoints are not supported: use the original one.",
            WHERE,
        )
