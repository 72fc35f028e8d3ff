"""A network from a function: ``package.module:function`` or ``file.py:function``.

The function may be the user's own or a library's, such as ``timm:create_model`` and
``torchvision.models:resnet50``. Its source file is hashed into the provenance, and the version of
the package it was installed with, so that an edit or an update makes new features. A factory runs
the user's code by nature; checkpoints it is given through ``weights`` still do not.
"""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import packages_distributions, version
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import Field, field_validator
from torch import nn

from pipeline.models.network import Network, as_network
from pipeline.models.options import ModelOptions, seeded
from pipeline.models.weights import load_checkpoint, load_into
from pipeline.types import InputError

WHERE = "model.path"


class FactoryOptions(ModelOptions):
    """A network that a function of the user's returns."""

    kind: Literal["factory"] = "factory"
    """This family."""
    path: str
    """``package.module:function`` or ``file.py:function``."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the function."""

    @field_validator("path")
    @classmethod
    def _names_a_function(cls, path: str) -> str:
        source, _, function = path.rpartition(":")
        if not source or not function.isidentifier():
            raise ValueError("expected package.module:function or file.py:function")
        return path


def build(options: FactoryOptions) -> Network:
    """What the function returns: a module, or (module, dotted name of its final linear layer).

    Without the name, the linear layer registered last is the head.
    """
    source, _, name = options.path.rpartition(":")
    module_of_source = _imported_file(source) if source.endswith(".py") else _imported(source)
    function = getattr(module_of_source, name, None)
    if not callable(function):
        raise InputError(f"{source} has no function {name!r}.", where=WHERE)
    module, head = _called(function, options)
    if options.weights is not None:
        load_into(module, load_checkpoint(options.weights), options.weights)
    architecture = {
        "kind": options.kind,
        "function": name,
        "source_sha256": source_digest(function),
        **_installed_version(source),
        "kwargs": options.kwargs,
    }
    return as_network(module, head, architecture=architecture)


def source_digest(function: Callable[..., Any]) -> str:
    """SHA-256 of the file that defines the function."""
    file = inspect.getsourcefile(inspect.unwrap(function))
    if file is None:
        raise InputError(f"the factory {function!r} has no Python source file.", where=WHERE)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _installed_version(source: str) -> dict[str, str]:
    """Distributions of the package, since its other files make the network too; none for a file."""
    package = source.partition(".")[0]
    names = set() if source.endswith(".py") else set(packages_distributions().get(package, []))
    return (
        {"package": ", ".join(f"{name} {version(name)}" for name in sorted(names))} if names else {}
    )


def _called(function: Callable[..., Any], options: FactoryOptions) -> tuple[nn.Module, str | None]:
    try:
        inspect.signature(function).bind(**options.kwargs)
    except TypeError as error:
        raise InputError(
            f"{options.path} cannot be called with {sorted(options.kwargs)}: {error}.",
            where="model.kwargs",
        ) from None
    with seeded(options.seed):
        returned = function(**options.kwargs)
    module, head = (
        returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
    )
    if not isinstance(module, nn.Module) or not isinstance(head, str | None):
        raise InputError(
            f"{options.path} returned {type(returned).__name__}, expected an nn.Module or "
            "(nn.Module, name of its final nn.Linear).",
            where=WHERE,
        )
    return module, head


def _imported(name: str) -> ModuleType:
    with _explained(name):
        return importlib.import_module(name)


def _imported_file(source: str) -> ModuleType:
    path = Path(source).resolve()
    if not path.is_file():
        raise InputError(f"no file at {path}.", where=WHERE)
    # One name per content: an edited file is imported anew, and classes in it can be pickled.
    content = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    name = f"entk_factory_{path.stem}_{content}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, path  # every .py file has a spec
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _explained(source):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _explained(source: str) -> Iterator[None]:
    """Turns what cannot be imported or parsed into a message; other errors are the user's own."""
    try:
        yield
    except ImportError as error:
        raise InputError(
            f"cannot import {source}: {error}. Install the package or put its folder on "
            "PYTHONPATH; a file is written as path/to/file.py:function.",
            where=WHERE,
        ) from None
    except SyntaxError as error:
        raise InputError(f"cannot import {source}: {error}.", where=WHERE) from None
