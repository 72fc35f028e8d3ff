"""From texts to the token tensors that a language model takes; declared in the config.

A batch is as long as its longest text. Masks are 1 at tokens and 0 at padding, on the right.
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from pydantic import PositiveInt
from torch import Tensor

from pipeline.artefact import canonical_json
from pipeline.config import Options
from pipeline.data.split import Split
from pipeline.types import InputError, MissingExtraError

WHERE = "benchmark.preprocess.tokenizer"

Tokens = Mapping[str, Int[Tensor, "n t"]]
"""``input_ids``, ``attention_mask`` and, where the tokenizer makes them, ``token_type_ids``."""


class TokenizeOptions(Options):
    """How texts become tokens."""

    tokenizer: str
    """Folder of the tokenizer, as ``save_pretrained`` writes it; nothing is downloaded."""
    max_length: PositiveInt = 128
    """Longest text, in tokens; the rest is cut off."""


def load_tokens(split: Split, rows: slice, options: TokenizeOptions) -> dict[str, Tensor]:
    """The tokenized texts at positions ``rows`` of a split, padded to the longest."""
    chosen = split.subset(rows)
    encode = _tokenizer(options.tokenizer).encode
    texts = [str(chosen.source.image(int(row))) for row in chosen.rows]
    encoded = encode(texts, truncation=True, max_length=options.max_length)
    for name, ids in zip(chosen.ids, encoded["input_ids"], strict=True):
        if not ids:
            raise InputError(
                f"the text of {name} (split {split.name}) has no tokens. Leave it out.", "benchmark"
            )
    length = max(map(len, encoded["input_ids"]))
    fill = {"input_ids": encode.pad_token_id or 0}
    return {
        name: _padded(encoded[name], length, fill.get(name, 0))
        for name in ("input_ids", "attention_mask", "token_type_ids")
        if name in encoded
    }


def longest_tokens(options: TokenizeOptions, count: int) -> dict[str, Tensor]:
    """A batch as long as a text may be: what memory is planned for."""
    names = _tokenizer(options.tokenizer).encode.model_input_names
    shape = (count, options.max_length)
    made = {"input_ids": torch.zeros, "attention_mask": torch.ones, "token_type_ids": torch.zeros}
    return {name: make(shape, dtype=torch.int64) for name, make in made.items() if name in names}


def token_provenance(options: TokenizeOptions) -> dict[str, Any]:
    """What determines the tokens: the tokenizer's content, not its place, and the length."""
    return {
        "tokenizer": _tokenizer(options.tokenizer).digest,
        "max_length": options.max_length,
    }


def _padded(rows: Sequence[Sequence[int]], length: int, fill: int) -> Int[Tensor, "n t"]:
    return torch.tensor([[*row, *[fill] * (length - len(row))] for row in rows])


@dataclass(frozen=True)
class _Tokenizer:
    encode: Any
    digest: str
    """SHA-256 of everything that decides what it makes of a text."""


@functools.lru_cache(maxsize=4)
def _tokenizer(folder: str) -> _Tokenizer:
    """The tokenizer of a folder; its backend is stripped of the padding it was saved with."""
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("transformers", "hf", "benchmark.kind: text_table") from None
    path = Path(folder).expanduser()
    if not (path / "tokenizer.json").is_file():
        raise InputError(
            f"no tokenizer.json in {path}: expected a folder as a fast tokenizer's "
            "save_pretrained writes it.",
            WHERE,
        )
    try:
        loaded = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} holds no tokenizer that loads: {error}", WHERE) from None
    loaded.backend_tokenizer.no_padding()
    loaded.backend_tokenizer.no_truncation()
    loaded.padding_side = loaded.truncation_side = "right"
    content = {
        "backend": loaded.backend_tokenizer.to_str(),
        "inputs": list(loaded.model_input_names),
        "special": {name: str(token) for name, token in loaded.special_tokens_map.items()},
    }
    return _Tokenizer(loaded, hashlib.sha256(canonical_json(content).encode()).hexdigest())
