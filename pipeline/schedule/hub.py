"""Where each model's files are: local ones as they lie, a hub's at the commit of today."""

import logging
import re
from pathlib import Path

from pipeline.artefact import read_json, write_json
from pipeline.schedule.options import HubOptions, Registry
from pipeline.types import InputError, MissingExtraError

logger = logging.getLogger(__name__)

PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model")
"""What is fetched: configs, tokenizers and weights that hold no code; never a pickle."""


class Sources:
    """The files of a registry's models; each hub revision is resolved once."""

    def __init__(self, registry: Registry, root: Path) -> None:
        self._registry = registry
        self._cache = root / "hub"
        self._found: dict[str, tuple[Path | None, str]] = {}

    def of(self, model: str) -> tuple[Path | None, str]:
        """Folder of a hub's model (None of a local one), and a name of what was found."""
        if model not in self._found:
            entry = self._registry.models[model]
            if entry.hub is None:
                local = entry.model.get("weights") or entry.model.get("path") or "no file"
                self._found[model] = None, str(local)
            else:
                commit = resolved_commit(entry.hub, self._cache)
                folder = snapshot(entry.hub, commit, self._cache)
                self._found[model] = folder, f"{entry.hub.repository}@{commit[:12]}"
        return self._found[model]


def resolved_commit(options: HubOptions, cache: Path) -> str:
    """The commit that a revision means now; without a network, the one it meant last time."""
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        raise MissingExtraError("huggingface_hub", "hf", "a model from a hub") from None
    memory = _place(cache, options) / f"{options.revision.replace('/', '--')}.json"
    try:
        commit = str(HfApi().model_info(options.repository, revision=options.revision).sha)
    except HfHubHTTPError as error:  # The hub answered: no such model, or no access to it.
        raise InputError(f"{options.repository} at {options.revision}: {error}", "hub") from None
    except Exception as error:  # No network; which class says so depends on the hub's client.
        if not memory.is_file():
            raise InputError(
                f"{options.repository} at {options.revision} cannot be looked up ({error}), and "
                "no commit of it was fetched before. Check name and network.",
                "hub",
            ) from None
        commit = read_json(memory)["commit"]
        logger.warning(
            "%s: the hub cannot be reached, commit %s as before", options.repository, commit[:12]
        )
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise InputError(
            f"{options.repository}: the hub names no commit, but {commit[:60]!r}.", "hub"
        )
    write_json(memory, {"commit": commit})
    return commit


def snapshot(options: HubOptions, commit: str, cache: Path) -> Path:
    """The folder with a commit's config, tokenizer and safetensors; fetched once."""
    from huggingface_hub import snapshot_download

    folder = _place(cache, options) / commit
    if not (folder / ".complete").is_file():
        snapshot_download(
            options.repository, revision=commit, local_dir=folder, allow_patterns=list(PATTERNS)
        )
        refuse_escapes(folder)
        (folder / ".complete").touch()
    return folder


def refuse_escapes(folder: Path) -> None:
    """Raise :class:`InputError` for a file of a fetched folder that lies outside it."""
    inside = folder.resolve()
    for file in folder.rglob("*"):
        if not file.resolve().is_relative_to(inside):
            raise InputError(f"{file} points outside of {folder}: the model is refused.", "hub")


def _place(cache: Path, options: HubOptions) -> Path:
    return cache / options.repository.replace("/", "--")
