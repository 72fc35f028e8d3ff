import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from texts import save_tokenizer, sentences

from pipeline.data.batches import batch_loader, largest_batch, preprocess_provenance
from pipeline.data.text_table import TextTableOptions, build
from pipeline.types import InputError

pytest.importorskip("transformers")

SPLITS = ["train"] * 16 + ["validation"] * 4 + ["test"] * 4


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    return save_tokenizer(tmp_path / "tokenizer")


def write(path: Path, columns: dict[str, list[str]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
    return str(path)


def rows_of(n: int = 24) -> dict[str, list[str]]:
    texts, labels = sentences(n)
    return {"text": texts, "label": labels, "split": SPLITS[:n]}


def options(path: str, tokenizer: str, **changes) -> TextTableOptions:
    named = {"validation": "val", "test": "id_test"}
    given = {"path": path, "preprocess": {"tokenizer": tokenizer}, "splits": named, **changes}
    return TextTableOptions.model_validate(given)


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_a_table_becomes_splits_of_texts(tmp_path, tokenizer, name):
    columns = rows_of()
    built = build(options(write(tmp_path / name, columns), tokenizer))
    assert {name: len(split) for name, split in built.splits.items()} == {
        "train": 16,
        "val": 4,
        "id_test": 4,
    }
    for split in built.splits.values():
        for row, label, identity in zip(split.rows, split.labels, split.ids, strict=True):
            assert identity == f"{name}:{row}"
            assert split.source.image(row) == columns["text"][row]
            assert built.classes[label] == columns["label"][row]


def test_a_folder_holds_a_table_for_each_split(tmp_path, tokenizer):
    columns = rows_of()
    chosen = {part: [i for i, s in enumerate(SPLITS) if s == part] for part in set(SPLITS)}
    for part, rows in chosen.items():
        some = {name: [columns[name][i] for i in rows] for name in ("text", "label")}
        write(tmp_path / "data" / f"{part}-00000-of-00001.parquet", some)
    built = build(options(str(tmp_path), tokenizer))
    whole = build(options(write(tmp_path / "other" / "table.csv", columns), tokenizer))
    for name, split in built.splits.items():
        assert sorted(split.fingerprints()) == sorted(whole.splits[name].fingerprints())


def test_batches_are_padded_to_their_longest_text(tmp_path, tokenizer):
    built = build(options(write(tmp_path / "t.csv", rows_of()), tokenizer))
    split = built.splits["train"]
    load = batch_loader(options("x", tokenizer).preprocess)
    inputs = load(split, slice(3, 8))
    lengths = [len(split.source.image(row).split()) + 2 for row in split.rows[3:8]]
    assert inputs["input_ids"].shape == (5, max(lengths))
    assert inputs["attention_mask"].sum(1).tolist() == lengths
    assert (inputs["input_ids"][inputs["attention_mask"] == 0] == 0).all()
    assert (inputs["input_ids"][:, 0] == 2).all()


def test_long_texts_are_cut_and_plans_are_made_for_the_longest(tmp_path, tokenizer):
    short = options(
        write(tmp_path / "t.csv", rows_of()),
        tokenizer,
        preprocess={"tokenizer": tokenizer, "max_length": 4},
    )
    split = build(short).splits["train"]
    inputs = batch_loader(short.preprocess)(split, slice(0, 16))
    assert inputs["input_ids"].shape == (16, 4)
    largest = largest_batch(split, short.preprocess, 2)
    assert set(largest) == set(inputs)
    assert all(tensor.shape == (2, 4) for tensor in largest.values())
    assert all(tensor.dtype == torch.int64 for tensor in largest.values())


def test_provenance_follows_the_tokenizers_content_not_its_place(tmp_path, tokenizer):
    first = options("x", tokenizer).preprocess
    second = options("x", save_tokenizer(tmp_path / "elsewhere")).preprocess
    before = preprocess_provenance(first)
    assert preprocess_provenance(second) == before
    built = build(options(write(tmp_path / "t.csv", rows_of()), tokenizer))
    batch_loader(first)(built.splits["train"], slice(0, 2))
    assert preprocess_provenance(first) == before
    file = Path(save_tokenizer(tmp_path / "third")) / "tokenizer.json"
    file.write_text(file.read_text().replace("bright", "dark"))
    third = options("x", str(tmp_path / "third")).preprocess
    assert preprocess_provenance(third) != before


def test_mistakes_are_explained(tmp_path, tokenizer):
    path = write(tmp_path / "t.csv", rows_of())
    split = build(options(path, tokenizer)).splits["train"]
    load = batch_loader(options(path, str(tmp_path)).preprocess)
    with pytest.raises(InputError, match=r"no tokenizer\.json in"):
        load(split, slice(0, 1))
    with pytest.raises(InputError, match=r"nothing at .*absent"):
        build(options(str(tmp_path / "absent"), tokenizer))
    with pytest.raises(InputError, match=r"no \.csv or \.parquet file in"):
        build(options(tokenizer, tokenizer))
    with pytest.raises(InputError, match="no column review; its columns are text, label, split"):
        build(options(path, tokenizer, columns={"text": "review"}))
    empty = rows_of()
    empty["text"][5] = ""
    with pytest.raises(InputError, match=r"e\.parquet, row 5: a value is missing"):
        build(options(write(tmp_path / "e.parquet", empty), tokenizer))


def test_whole_number_labels_in_parquet_are_classes(tmp_path, tokenizer):
    columns = rows_of()
    table = pa.table({**columns, "label": np.array(columns["label"], dtype=np.int64)})
    pq.write_table(table, tmp_path / "n.parquet")
    built = build(options(str(tmp_path / "n.parquet"), tokenizer))
    assert built.classes == ["0", "1"]
