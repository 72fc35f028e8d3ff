"""Batches of a split as a network takes them, whatever its samples are."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from pipeline.data.preprocess import Preprocess, PreprocessOptions, load_batch
from pipeline.data.split import Split
from pipeline.data.tokens import TokenizeOptions, load_tokens, longest_tokens, token_provenance
from pipeline.types import Inputs

AnyPreprocess = PreprocessOptions | TokenizeOptions

LoadBatch = Callable[[Split, slice], Inputs]
"""The preprocessed samples at some positions of a split."""


def batch_loader(options: AnyPreprocess) -> LoadBatch:
    """How the samples of a benchmark with these options are loaded."""
    if isinstance(options, TokenizeOptions):
        return lambda split, rows: load_tokens(split, rows, options)
    transform = Preprocess(options)
    return lambda split, rows: load_batch(split, rows, transform)


def largest_batch(split: Split, options: AnyPreprocess, count: int) -> Inputs:
    """Up to ``count`` samples as large as those of this benchmark can be."""
    if isinstance(options, TokenizeOptions):
        return longest_tokens(options, count)
    return batch_loader(options)(split, slice(0, count))


def input_bytes(inputs: Inputs) -> int:
    """One sample of a batch, in bytes."""
    tensors = [inputs] if isinstance(inputs, Tensor) else list(inputs.values())
    return sum(tensor[0].numel() * tensor.element_size() for tensor in tensors)


def preprocess_provenance(options: AnyPreprocess) -> dict[str, Any]:
    """What of the preprocessing determines the network's input, in plain JSON values."""
    if isinstance(options, TokenizeOptions):
        return token_provenance(options)
    return options.model_dump(mode="json")
