"""Uses of whole modules whose class has a rule of its own."""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

from torch import nn

from pipeline.jacobian.call import rules_of
from pipeline.jacobian.interception import UseInterceptor


@contextlib.contextmanager
def module_uses(model: nn.Module, interceptor: UseInterceptor) -> Iterator[None]:
    """Inside, modules with a rule for their class offer their own parameters as one use."""
    originals = {}
    for module in model.modules():
        if rules_of(type(module)) is not None:
            originals[module] = module.forward
            module.forward = _watched(module, interceptor)
    try:
        yield
    finally:
        for module in originals:
            del module.forward


def _watched(module: nn.Module, interceptor: UseInterceptor) -> Any:
    original = module.forward
    signature = inspect.signature(original)

    def forward(*args: Any, **kwargs: Any) -> Any:
        arguments = dict(signature.bind(*args, **kwargs).arguments)
        own = dict(module.named_parameters(recurse=False))
        return interceptor.module_use(
            type(module),
            {**arguments, **own},
            list(own.values()),
            lambda: original(*args, **kwargs),
        )

    return forward
