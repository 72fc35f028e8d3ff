"""A tiny tokenizer, tiny language models and sentences of two classes, made by the tests."""

from pathlib import Path

import numpy as np
import torch

WORDS = {"0": ["sun", "warm", "bright", "light"], "1": ["rain", "cold", "grey", "wet"]}
COMMON = ["the", "day", "is", "and", "very", "not", "so", "a"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def save_tokenizer(folder: Path) -> str:
    """A word tokenizer that frames texts by [CLS] and [SEP], as BERT's does."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL, *COMMON, *WORDS["0"], *WORDS["1"]]
    vocabulary = {word: number for number, word in enumerate(words)}
    made = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(folder)
    return str(folder)


def save_bert(folder: Path) -> str:
    """A BERT of two layers with random weights."""
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(SPECIAL) + len(COMMON) + 8, hidden_size=16, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=32, max_position_embeddings=32,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return str(folder)


def sentences(n: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Texts of 2 to 9 words, every one different, and their labels: two words tell the class."""
    rng = np.random.default_rng(seed)
    labels = [str(i % 2) for i in range(n)]
    texts: list[str] = []
    for label in labels:
        while len(texts) < n:
            filler = rng.choice(COMMON, size=rng.integers(0, 8)).tolist()
            words = [*filler, *rng.choice(WORDS[label], size=2).tolist()]
            text = " ".join(words[i] for i in rng.permutation(len(words)))
            if text not in texts:
                texts.append(text)
                break
    return texts, labels
