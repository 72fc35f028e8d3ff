"""Per-sample products ``left · rightᵀ``: dense, dense and gathered, or sampled.

The sampled product computes one dot product per kept entry, with ``torch.sparse.sampled_addmm``;
where the sketch keeps a few per cent it costs a tenth of the dense product on a CPU.
"""

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

SAMPLED_DENSITY = 0.25
"""Kept share under which a CPU computes dot products one by one (about 25 GFLOP/s against 140)."""

DENSE_BYTES = 1 << 28
"""A dense product that is gathered from is formed in groups of samples of at most this size."""


@dataclass(frozen=True, eq=False)
class Pattern:
    """Kept positions of a (rows, columns) product in compressed sparse row form."""

    crow: Int[Tensor, " rows_plus_one"]
    columns: Int[Tensor, " m"]

    @staticmethod
    def of(
        rows: Int[Tensor, " m"], columns: Int[Tensor, " m"], shape: tuple[int, int], groups: int
    ) -> "Pattern":
        """From entries sorted by row; columns count within the row's group, and become absolute."""
        absolute = columns + rows // (shape[0] // groups) * shape[1] if groups > 1 else columns
        edges = torch.arange(shape[0] + 1, device=rows.device)
        return Pattern(torch.searchsorted(rows, edges).int(), absolute.int())


def sampling_is_faster(size: int, left: Tensor, right: Tensor, groups: int) -> bool:
    """Whether dot products one by one beat the dense product, on this device and dtype."""
    # Under autocast a saved input may be float32 and the gradient bfloat16: dense products convert.
    if left.device.type != "cpu" or left.dtype != right.dtype or left.dtype == torch.bfloat16:
        return False
    whole = left.shape[1] * right.shape[1] // groups
    return groups > 4 or size < SAMPLED_DENSITY * whole


def dense(
    left: Float[Tensor, "n r t"], right: Float[Tensor, "n c t"], groups: int = 1
) -> Float[Tensor, "n m"]:
    """``left · rightᵀ`` flattened; with groups, of each group's rows and columns."""
    n = len(left)
    if groups > 1:
        left, right = left.unflatten(1, (groups, -1)), right.unflatten(1, (groups, -1))
        left, right = left.flatten(0, 1), right.flatten(0, 1)
    return torch.bmm(left, right.to(left.dtype).transpose(1, 2)).reshape(n, -1)


def gathered(
    flat: Int[Tensor, " m"],
    left: Float[Tensor, "n r t"],
    right: Float[Tensor, "n c t"],
    groups: int = 1,
) -> Float[Tensor, "n m"]:
    """Entries of the dense product, a few samples at a time."""
    bytes_per_sample = left.shape[1] * right.shape[1] // groups * left.element_size()
    step = max(1, DENSE_BYTES // bytes_per_sample)
    pieces = [
        dense(left[i : i + step], right[i : i + step], groups).index_select(1, flat)
        for i in range(0, len(left), step)
    ]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def sampled(
    pattern: Pattern, left: Float[Tensor, "n r t"], right: Float[Tensor, "n c t"]
) -> Float[Tensor, "n m"]:
    """One dot product per kept entry and sample."""
    n = len(left)
    if left.shape[2] == 1:
        rows = torch.repeat_interleave(pattern.crow.diff().long())
        return left[:, :, 0].index_select(1, rows) * right[:, :, 0].index_select(1, pattern.columns)
    with warnings.catch_warnings():
        # "Sparse CSR tensor support is in beta state": the call below is covered by tests.
        warnings.filterwarnings("ignore", message="Sparse", category=UserWarning)
        positions = torch.sparse_csr_tensor(
            pattern.crow.expand(n, -1),
            pattern.columns.expand(n, -1),
            left.new_zeros(n, len(pattern.columns)),
            (n, left.shape[1], right.shape[1]),
            check_invariants=False,
        )
    product = torch.sparse.sampled_addmm(
        positions, left.contiguous(), right.transpose(1, 2), beta=0
    )
    return product.values()


def lookup(
    slots: Int[Tensor, "n t"], size: int, rows: Float[Tensor, "n t d"]
) -> Float[Tensor, "n m"]:
    """Rows added up by slot, (n, size · d); slot −1 is dropped."""
    n, _, width = rows.shape
    out = rows.new_zeros(n * size, width)
    sample, token = torch.nonzero(slots >= 0, as_tuple=True)
    _add_at(out, sample * size + slots[sample, token], rows[sample, token])
    return out.view(n, size * width)


def scattered_lookup(
    pattern: Pattern, ids: Int[Tensor, "n t"], rows: Float[Tensor, "n t d"]
) -> Float[Tensor, "n m"]:
    """Kept entries of the rows added up by id: only those of rows that occur are visited."""
    n, length, _ = rows.shape
    crow = pattern.crow.long()
    first, count = crow[ids.flatten()], crow.diff()[ids.flatten()]
    token = torch.repeat_interleave(count)
    before = count.cumsum(0) - count
    entry = first[token] + torch.arange(len(token), device=ids.device) - before[token]
    values = rows.flatten(0, 1)[token, pattern.columns.long()[entry]]
    out = rows.new_zeros(n * len(pattern.columns))
    _add_at(out, token // length * len(pattern.columns) + entry, values)
    return out.view(n, -1)


def _add_at(out: Tensor, positions: Tensor, values: Tensor) -> None:
    """Add values at positions that may repeat, in an order that repeats from run to run."""
    if out.device.type == "cpu":
        out.index_add_(0, positions, values)
    else:
        out.index_put_((positions,), values, accumulate=True)
