"""One forward and one backward pass of a batch, with what is known about the network."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from pipeline.jacobian.call import OverwrittenError
from pipeline.jacobian.checks import RECOMPUTES
from pipeline.jacobian.columns import Columns
from pipeline.jacobian.fallback import Scalars
from pipeline.jacobian.folding import FoldBrokenError, FoldedPass, Pair, PairFinder
from pipeline.jacobian.interception import Put, UseInterceptor
from pipeline.jacobian.modules import module_uses
from pipeline.jacobian.plan import Piece, Plan
from pipeline.types import InputError, Inputs, batch_size, run_model

logger = logging.getLogger(__name__)

Pieces = dict[str, list[Piece]]


@dataclass
class Learnt:
    """What passes taught about a network; it grows, and passes are repeated until it suffices."""

    fallback: dict[str, str] = field(default_factory=dict)
    """Parameters that no rule covers, and why."""
    second: set[str] = field(default_factory=set)
    """Parameters whose uses have the samples along the second axis."""
    trusting: set[str] = field(default_factory=set)
    """Parameters that are indexed with tensors from before the pass: taken for constants."""
    clones: set[int] = field(default_factory=set)
    """Uses whose input is overwritten later in the forward pass."""
    choices: dict[int, bool] = field(default_factory=dict)
    """Which calls on constants give each sample a copy of its own."""
    pairs: dict[int, Pair] = field(default_factory=dict)
    """Convolutions to fold with the BatchNorm after them."""

    def covered(self, pieces: Pieces) -> Pieces:
        """The pieces of the parameters that have rules."""
        return {name: parts for name, parts in pieces.items() if name not in self.fallback}

    def decline(self, reasons: dict[str, str]) -> None:
        """Trust indices that these parameters meet; after that, the fallback, said once."""
        known = self.trusting | set(self.fallback)
        new = {n: why for n, why in reasons.items() if n in self.trusting - set(self.fallback)}
        self.trusting.update(name for name in reasons if name not in known)
        if new:
            listed = ", ".join(f"{name} ({reason})" for name, reason in new.items())
            logger.info("per-sample gradients by torch.func for: %s", listed)
        self.fallback.update(new)

    def change_layout(self, reasons: dict[str, str]) -> None:
        """Try samples along the second axis; after that, the fallback."""
        again = {name: reason for name, reason in reasons.items() if name in self.second}
        self.second.update(reasons)
        self.second.difference_update(again)
        self.decline(again)

    def set_pairs(self, pairs: dict[int, Pair]) -> None:
        """Fold these from now on; uses are then counted anew."""
        self.pairs = pairs
        self.clones.clear()


@dataclass(frozen=True)
class Outcome:
    """What a pass gives: the columns of each scalar, logits, the captured input."""

    columns: list[Columns]
    f0: Tensor
    captured: Tensor | None
    finder: PairFinder | None


class Passes:
    """Runs a network's passes; what they teach goes into ``learnt``."""

    def __init__(
        self,
        model: nn.Module,
        scalars: Scalars,
        plan: Plan,
        *,
        dtype: torch.dtype,
        device: torch.device,
        capture: nn.Module | None,
    ) -> None:
        self.model, self.scalars = model, scalars
        self.learnt = Learnt()
        self._plan, self._dtype = plan, dtype
        self._capture = capture
        self._memory = torch.empty(0, dtype=dtype, device=device)

    def until_learnt(self, inputs: Inputs, pieces: Pieces) -> Outcome:
        """The outcome of a pass with which everything went as known."""
        while True:
            outcome = self.attempt(inputs, self.learnt.covered(pieces))
            if outcome is not None:
                return outcome

    def attempt(
        self, inputs: Inputs, pieces: Pieces, put: Put | None = None, *, find: bool = False
    ) -> Outcome | None:
        """One forward and backward pass; None if something was learnt and it must run again.

        With ``put`` the first scalar's values go there, and no columns are filled.
        """
        interceptor = self._interceptor(pieces, batch_size(inputs), find)
        try:
            values, f0, captured = self._forward(interceptor, inputs)
            if not interceptor.declined:
                if put is not None:
                    values = values[:, :1]
                columns = self._backward(interceptor, values, put)
                if not interceptor.failed:
                    return Outcome(columns, f0, captured, interceptor.finder)
        except CheckpointError:
            raise InputError(RECOMPUTES) from None
        except OverwrittenError as error:
            self.learnt.clones.add(error.use)
            return None
        except FoldBrokenError:
            self.learnt.set_pairs({})
            return None
        finally:
            interceptor.release()
        self.learnt.decline(interceptor.declined)
        self.learnt.change_layout(interceptor.failed)
        return None

    def _interceptor(self, pieces: Pieces, samples: int, find: bool) -> UseInterceptor:
        learnt = self.learnt
        interceptor = UseInterceptor(
            self.model,
            pieces,
            samples=samples,
            second=learnt.second,
            trusting=learnt.trusting,
            clones=learnt.clones,
            choices=learnt.choices,
            folds=FoldedPass(learnt.pairs) if learnt.pairs else None,
        )
        if find:
            interceptor.finder = PairFinder(interceptor.is_plain_constant)
        return interceptor

    def _forward(
        self, interceptor: UseInterceptor, inputs: Inputs
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        captured: list[Tensor] = []
        with (
            _capturing(self._capture, captured),
            module_uses(self.model, interceptor),
            interceptor,
        ):
            logits = run_model(self.model, inputs)
        if interceptor.folds is not None:
            interceptor.folds.finish()
        values = self.scalars(logits)
        f0 = logits.detach() if logits.ndim == 2 else values.detach()
        return values, f0.to(self._dtype), captured[0] if captured else None

    def _backward(
        self, interceptor: UseInterceptor, values: Float[Tensor, "n q"], put: Put | None
    ) -> list[Columns]:
        """One backward pass per scalar; the rules fill its columns."""
        found = []
        n, q = values.shape
        for j in range(q):
            columns = self._columns(n, reuse=q == 1)
            interceptor.put = columns.add if put is None else put
            interceptor.keep_saved = j < q - 1
            if values.requires_grad:
                torch.autograd.grad(
                    values[:, j].sum(),
                    [interceptor.anchor],
                    retain_graph=interceptor.keep_saved,
                    allow_unused=True,
                )
            found.append(columns)
        return found

    def _columns(self, n: int, reuse: bool) -> Columns:
        """Columns for n samples; in the last batch's memory where they are copied at the end."""
        if not reuse or self._plan.order is None:
            return Columns(self._plan, n, self._dtype, self._memory[:0])
        if self._memory.numel() < n * self._plan.columns:
            self._memory = self._memory.new_empty(n * self._plan.columns)
        return Columns(self._plan, n, self._dtype, self._memory)


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Inside, no parameter requires a gradient."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def eager() -> contextlib.AbstractContextManager[object]:
    """Inside, what ``torch.compile`` made runs as it was written: compiled code hides its calls."""
    compiler_is_loaded = "torch._dynamo" in sys.modules
    return (
        torch.compiler.set_stance("force_eager") if compiler_is_loaded else contextlib.nullcontext()
    )


@contextlib.contextmanager
def _capturing(module: nn.Module | None, into: list[Tensor]) -> Iterator[None]:
    """Inside, the module's input is kept."""
    if module is None:
        yield
        return
    handle = module.register_forward_pre_hook(lambda _, args: into.append(args[0].detach().clone()))
    try:
        yield
    finally:
        handle.remove()
