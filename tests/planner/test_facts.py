import pytest
import torch

from pipeline.planner import JobFacts
from pipeline.store import FeatureStore
from pipeline.types import InputError


def small(**changes) -> JobFacts:
    sizes = {
        "splits": {"train": 300, "val": 70},
        "p": 9000,
        "P": 10_000,
        "targets": 3,
        "k": 3,
        "h": 16,
        "flops_per_sample": 1e6,
        "bytes_per_sample": 1000,
        "input_bytes": 400,
    }
    return JobFacts(**{**sizes, **changes})


def test_shards_are_counted_as_the_store_makes_them(tmp_path):
    facts = small()
    shards = 0
    for name, n in facts.splits.items():
        store = FeatureStore.create(
            tmp_path / name, n=n, p=facts.p, provenance={}, scale=1.0, h=facts.h, k=facts.k
        )
        shards += store.shards
    assert facts.shards == shards


def test_store_bytes_count_whole_chunks():
    assert small(p=8192).row_bytes == 8192 * 2
    assert small(p=8193).row_bytes == 2 * 8192 * 2
    assert small(p=100).row_bytes == 200


def test_store_bytes_hold_what_is_written(tmp_path):
    facts = small(splits={"train": 300}, h=0)
    store = FeatureStore.create(tmp_path / "store", n=300, p=facts.p, provenance={}, k=facts.k)
    for shard in range(store.shards):
        rows = store.samples(shard)
        count = rows.stop - rows.start
        names = [str(i) for i in range(rows.start, rows.stop)]
        labels, f0 = torch.zeros(count, dtype=torch.int64), torch.zeros(count, facts.k)
        store.write_rows(shard, torch.ones(count, facts.p), f0=f0, labels=labels, ids=names)
    written = sum(file.stat().st_size for file in (tmp_path / "store").rglob("*") if file.is_file())
    assert facts.store_bytes == pytest.approx(written, rel=0.02)


def test_full_kernels_have_a_row_for_each_output():
    facts = small(outputs=3)
    assert facts.n == 900
    assert facts.m == 210
    assert facts.row_bytes == 3 * small().row_bytes


def test_a_refit_solves_for_both_splits():
    assert small(refit="val").fitted_rows == 370
    assert small().fitted_rows == 300


def test_an_empty_training_split_is_refused():
    with pytest.raises(InputError, match="training split is empty"):
        small(splits={"train": 0, "val": 5})
