"""Per-sample weight gradients of convolutions, without unfolding the input.

For one kernel position (tap) the gradient is Σ over output positions of g · x shifted by the tap.
Input and output gradient are laid into planes of one extent E per axis, the gradient padded with
zeros. Flattened, a shift is then an offset into the input's memory: each tap's right factor is a
strided view of one buffer, and what it reads beyond a row's end meets a zero. A stride s splits the
input into s phases per axis, each with its own planes: tap k reads phase (k · dilation) mod s at
shift (k · dilation) div s.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.jacobian.call import Call, Gradient, NotCoveredError, rule
from pipeline.jacobian.selection import Kept, Projection, Selection, whole_gradient_pays

CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
TRANSPOSED = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)


GROUPED_SAMPLES = 16
GROUPED_ENTRIES = 1 << 20
"""Samples, and floats of input, gradient and result, taken at a time: they stay in the cache."""


@dataclass(frozen=True)
class Geometry:
    """Kernel, stride, padding before, dilation of one convolution, per spatial axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @staticmethod
    def of(call: Call, kernel: tuple[int, ...]) -> "Geometry":
        """From the arguments of a convolution call."""
        axes = len(kernel)
        dilation = _per_axis(call["dilation"], axes, 1)
        padding: Any = call["padding"]
        if padding == "same":  # torch pads one more after than before where the sum is odd
            padding = [d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True)]
        elif padding == "valid":
            padding = 0
        return Geometry(
            kernel,
            _per_axis(call["stride"], axes, 1),
            _per_axis(padding, axes, 0),
            dilation,
            call["groups"] or 1,
        )

    def extents(self, output: tuple[int, ...]) -> tuple[int, ...]:
        """E per axis: the output's extent and the largest shift."""
        axes = zip(output, self.kernel, self.dilation, self.stride, strict=True)
        return tuple(size + (k - 1) * d // s for size, k, d, s in axes)

    def taps(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Phase and shift of each tap, in the weight's order."""
        found = []
        for tap in itertools.product(*map(range, self.kernel)):
            steps = [k * d for k, d in zip(tap, self.dilation, strict=True)]
            pairs = [divmod(step, s) for step, s in zip(steps, self.stride, strict=True)]
            found.append((tuple(phase for _, phase in pairs), tuple(shift for shift, _ in pairs)))
        return found


class ShiftedViews:
    """One input (N, C, …), from which each tap's right factor (N, C, T) is a view."""

    def __init__(self, x: Tensor, geometry: Geometry, output: tuple[int, ...]) -> None:
        self.shape = x.shape[:2]
        self.extents = geometry.extents(output)
        self.taps = geometry.taps()
        self.plane = math.prod(self.extents)
        self.block = x.shape[0] * x.shape[1] * self.plane
        self.phases = {phase: i for i, phase in enumerate(dict.fromkeys(p for p, _ in self.taps))}
        if len(self.taps) == 1 and x.shape[2:] == self.extents and not any(geometry.padding):
            self.buffer = x.contiguous().view(-1)
            return
        tail = self._offset(self.taps[-1][1])
        self.buffer = x.new_zeros(len(self.phases) * self.block + tail)
        for phase, number in self.phases.items():
            start = number * self.block
            planes = self.buffer[start : start + self.block].view(*self.shape, *self.extents)
            _lay(x, planes, phase, geometry)

    def _offset(self, shift: tuple[int, ...]) -> int:
        offset = 0
        for extent, step in zip(self.extents, shift, strict=True):
            offset = offset * extent + step
        return offset

    def tap(self, number: int) -> Tensor:
        """The right factor (N, C, T) of one tap."""
        phase, shift = self.taps[number]
        start = self.phases[phase] * self.block + self._offset(shift)
        samples, channels = self.shape
        strides = (channels * self.plane, self.plane, 1)
        return self.buffer.as_strided(
            (samples, channels, self.plane), strides, self.buffer.storage_offset() + start
        )

    def left(self, grad: Tensor) -> Tensor:
        """The output gradient (N, rows, T), zero where a view holds no input."""
        if tuple(grad.shape[2:]) == self.extents:
            return grad.reshape(*grad.shape[:2], -1)
        planes = grad.new_zeros(*grad.shape[:2], *self.extents)
        inner: tuple[Any, ...] = (Ellipsis, *map(slice, grad.shape[2:]))
        planes[inner] = grad
        return planes.flatten(2)


def _lay(x: Tensor, planes: Tensor, phase: tuple[int, ...], geometry: Geometry) -> None:
    """Copy one phase of the padded input: plane position q holds x[q · s + phase − padding]."""
    source: list[Any] = [Ellipsis]
    target: list[Any] = [Ellipsis]
    for axis, size in enumerate(planes.shape[2:]):
        s, begin = geometry.stride[axis], phase[axis] - geometry.padding[axis]
        skipped = max(0, math.ceil(-begin / s))
        count = max(0, min(size - skipped, math.ceil((x.shape[2 + axis] - begin) / s) - skipped))
        first = begin + skipped * s
        source.append(slice(first, first + max(0, (count - 1) * s + 1), s))
        target.append(slice(skipped, skipped + count))
    planes[tuple(target)] = x[tuple(source)]


@rule(
    *CONVOLUTIONS, argument="weight", signature="input weight bias stride padding dilation groups"
)
def conv_weight(call: Call, keep: Selection) -> Gradient:
    """W (out, in / groups, …) of a convolution."""
    x, geometry = call["input"], Geometry.of(call, keep.shape[2:])
    if x.ndim != len(keep.shape):
        raise NotCoveredError("a convolution without a batch axis")
    if isinstance(keep, Projection):
        return _projected(call, keep, geometry)
    if _as_groups_is_faster(keep, x, geometry):
        return _grouped(call, keep, geometry)
    if geometry.groups > 1:
        keep = keep.scattered()
    saved = call.save(keep.cut_columns(x, 1))
    return lambda grad: call.fold(_by_taps(keep, saved(), keep.cut_rows(grad, 1), geometry))


@rule(
    *TRANSPOSED,
    argument="weight",
    signature="input weight bias stride padding output_padding groups dilation",
)
def conv_transpose_weight(call: Call, keep: Selection) -> Gradient:
    """W (in, out / groups, …) of a transposed convolution: input and gradient change roles."""
    x, geometry = call["input"], Geometry.of(call, keep.shape[2:])
    if x.ndim != len(keep.shape) or isinstance(keep, Projection):
        raise NotCoveredError("a transposed convolution without a batch axis, or projected")
    if geometry.groups > 1:
        keep = keep.scattered()
    saved = call.save(keep.cut_rows(x, 1))
    return lambda grad: call.fold(_by_taps(keep, keep.cut_columns(grad, 1), saved(), geometry))


@rule(*CONVOLUTIONS, *TRANSPOSED, argument="bias")
def conv_bias(call: Call, keep: Selection) -> Gradient:
    """A bias per channel: output gradients summed over space."""

    def gradient(grad: Tensor) -> Tensor:
        return keep.finish(call.fold(keep.channels(grad, 1).flatten(2).sum(2)))

    return gradient


def _by_taps(keep: Kept, x: Tensor, grad: Tensor, geometry: Geometry) -> Tensor:
    """Kept entries (N, m), one product per kernel position."""
    views = ShiftedViews(x.to(grad.dtype), geometry, tuple(grad.shape[2:]))
    left = views.left(grad)
    values = [
        part.contract(left, views.tap(number), geometry.groups)
        for number, part in enumerate(keep.parts)
        if part is not None
    ]
    return keep.from_taps(values[0] if len(values) == 1 else torch.cat(values, 1))


def _as_groups_is_faster(keep: Kept, x: Tensor, geometry: Geometry) -> bool:
    """Whether oneDNN's grouped convolution forms whole gradients faster than products per tap."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or not x.is_contiguous():
        return False
    return whole_gradient_pays(keep.shape, keep.size, geometry.groups)


def _grouped(call: Call, keep: Kept, geometry: Geometry) -> Gradient:
    x = call.save(call["input"])
    return lambda grad: call.fold(_as_groups(keep, x(), grad, geometry))


def _as_groups(keep: Kept, x: Tensor, grad: Tensor, geometry: Geometry) -> Tensor:
    """Kept entries (N, m): samples become the groups of one convolution, a few at a time."""
    values = grad.new_empty(len(grad), keep.size)
    width = x[0].numel() + grad[0].numel() + keep.rows * keep.inner * keep.taps
    step = max(1, min(GROUPED_SAMPLES, GROUPED_ENTRIES // width))
    # Only its shape matters. Expanded from one number, it would be written out at every call.
    no_weight = grad.new_empty(step * keep.rows, *keep.shape[1:])
    axes = len(geometry.kernel)
    for start in range(0, len(grad), step):
        g, part = grad[start : start + step], x[start : start + step]
        count = len(g)
        _, whole, _ = torch.ops.aten.convolution_backward(
            g.reshape(1, -1, *g.shape[2:]),
            part.reshape(1, -1, *part.shape[2:]),
            no_weight[: count * keep.rows],
            None,
            geometry.stride,
            geometry.padding,
            geometry.dilation,
            False,
            [0] * axes,
            count * geometry.groups,
            [False, True, False],
        )
        torch.index_select(
            whole.view(count, -1), 1, keep.entries, out=values[start : start + count]
        )
    return values


def _projected(call: Call, keep: Projection, geometry: Geometry) -> Gradient:
    """L · G · Rᵀ: the projected unfolded input is a convolution with R's rows as filters."""
    x, groups = call["input"], geometry.groups
    convolve = CONVOLUTIONS[len(geometry.kernel) - 1]
    filters = keep.right.view(-1, *keep.shape[1:]).to(x.dtype)
    filters = filters.repeat(groups, *(1,) * (filters.ndim - 1))
    padding = call["padding"] if isinstance(call["padding"], str) else geometry.padding
    right = convolve(x, filters, None, geometry.stride, padding, geometry.dilation, groups)
    saved = call.save(right)

    def gradient(grad: Tensor) -> Tensor:
        left, right = grad.flatten(2), saved().flatten(2).to(grad.dtype)
        if groups == 1:
            return call.fold(keep.contract(keep.cut_rows(left, 1), right))
        factors = (keep.left.to(grad.dtype), left, right)
        parts = zip(*(factor.chunk(groups, 1) for factor in factors), strict=True)
        return call.fold(torch.stack([keep.contract(m @ g, r) for m, g, r in parts]).sum(0))

    return gradient


def _per_axis(value: Any, axes: int, default: int) -> tuple[int, ...]:
    if value is None:
        return (default,) * axes
    values = (value,) * axes if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values
