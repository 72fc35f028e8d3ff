import numpy as np
import pytest
import torch

from pipeline.gram import (
    FeaturePanels,
    FileRows,
    gram_blocks,
    resident,
    shard_rows,
    shard_to_disk,
    shards,
)
from pipeline.gram.shards import partners
from pipeline.gram.sources import ArraySource, RowRange
from pipeline.solvers.feature_kernel import FeatureKernel
from pipeline.solvers.group import shares
from pipeline.solvers.operator import product
from pipeline.solvers.row_kernel import RowKernel

N, M, P, WIDTH = 70, 33, 50, 8


class Killed(BaseException):
    """Nothing may catch it, as nothing catches SIGKILL."""


@pytest.fixture(params=["float32", "float16"])
def features(request):
    rng = np.random.default_rng(0)
    return [rng.standard_normal((rows, P)).astype(request.param) for rows in (N, M)]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(shards, "CHUNK_ROWS", 16)


def sources(features, weights=(0.5, 0.25)):
    """Each store has a scale of its own: a factor that all its columns share."""
    pairs = zip(features, weights, strict=True)
    return [ArraySource(values, np.full(P, weight)) for values, weight in pairs]


def whole(features):
    train, other = sources(features)
    return gram_blocks(train, {"other": other}, panel_columns=WIDTH)


def write(features, rank, target, workers=3, **options):
    options = {"provenance": {}, "panel_columns": WIDTH, **options}
    shard_to_disk(sources(features), shares(N, workers), rank, target, **options)


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 5])
def test_shards_are_the_rows_of_the_whole_and_symmetric(features, tmp_path, workers):
    expected, parts = whole(features), shares(N, workers)
    folders = [tmp_path / str(rank) for rank in range(workers)]
    for rank, folder in enumerate(folders):
        write(features, rank, folder, workers)
        crosses = np.load(folder / "cross.npy")
        np.testing.assert_allclose(crosses, expected["other"][:, parts[rank]], rtol=1e-5, atol=1e-4)
        assert crosses.flags.c_contiguous
    K = np.vstack([shard_rows(folders, parts, rank) for rank in range(workers)])
    np.testing.assert_allclose(K, expected["train"], rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(K, K.T)


def test_each_pair_of_workers_is_made_once():
    for workers in range(1, 9):
        pairs = [frozenset((r, other)) for r in range(workers) for other in partners(r, workers)]
        assert len(pairs) == len(set(pairs)) == workers * (workers + 1) // 2


def test_rows_of_two_sources_can_be_training_rows_together(features, tmp_path):
    parts = [slice(0, 60), slice(60, N + M)]
    for rank in range(2):
        shard_to_disk(sources(features), parts, rank, tmp_path / str(rank), provenance={})
    found = shard_rows([tmp_path / "0", tmp_path / "1"], parts, 1)
    expected = whole(features)
    np.testing.assert_allclose(found[10:, :N], expected["other"], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found[:10, :N], expected["train"][60:], rtol=1e-5, atol=1e-4)


def test_a_killed_pass_goes_on_from_its_checkpoint(features, tmp_path, monkeypatch):
    write(features, 1, tmp_path / "undisturbed")
    calls = []
    real = shards.add_product

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 20:
            raise Killed
        real(*arguments)

    monkeypatch.setattr(shards, "add_product", interrupted)
    with pytest.raises(Killed):
        write(features, 1, tmp_path / "x", checkpoint_seconds=0.0)
    assert not (tmp_path / "x").exists()
    before = len(calls)
    write(features, 1, tmp_path / "x", checkpoint_seconds=0.0)
    for name in ("rows.npy", "cross.npy"):
        expected = (tmp_path / "undisturbed" / name).read_bytes()
        assert (tmp_path / "x" / name).read_bytes() == expected
    assert not (tmp_path / "x.checkpoint").exists()
    resumed = len(calls) - before
    write(features, 1, tmp_path / "again")
    assert resumed < len(calls) - before - resumed


def test_a_finished_shard_is_not_made_again(features, tmp_path, monkeypatch):
    write(features, 0, tmp_path / "x")
    monkeypatch.setattr(shards, "add_product", None)
    write(features, 0, tmp_path / "x")


def test_a_kernel_in_a_file_multiplies_as_in_memory(features, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.gram.file_rows.tile_rows", lambda width, device: 17)
    K = whole(features)["train"]
    np.save(tmp_path / "K.npy", K)
    V = torch.randn(N, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    dense = torch.from_numpy(K)
    operator = RowKernel(FileRows(tmp_path / "K.npy"))
    torch.testing.assert_close(operator.matvec(V), product(dense, V), rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(operator.diagonal(), dense.diagonal().double())
    part = FileRows(tmp_path / "K.npy", (40, 30))
    torch.testing.assert_close(product(part, V[:30]), product(dense[:40, :30], V[:30]))


@pytest.mark.parametrize("keep", [False, True], ids=["streamed", "resident"])
def test_a_kernel_of_panels_multiplies_as_the_gram(features, keep):
    both, rows = sources(features), slice(5, 60)
    parts = [(RowRange(both[0], rows), slice(0, 55)), (both[1], slice(3, 30))]
    if keep:
        parts = [
            (resident(source, kept), slice(0, kept.stop - kept.start)) for source, kept in parts
        ]
    panels = FeaturePanels(parts, panel_columns=WIDTH)
    operator = FeatureKernel(panels, scale=panels.factors)
    expected = whole(features)
    K = np.zeros((82, 82))
    K[:55, :55] = expected["train"][rows, rows]
    K[55:, :55] = expected["other"][3:30, rows]
    K[:55, 55:] = K[55:, :55].T
    V = torch.randn(82, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = operator.matvec(V)[:55]
    K[55:, 55:] = (features[1][3:30].astype(float) @ features[1][3:30].astype(float).T) / 16
    torch.testing.assert_close(found, (torch.from_numpy(K) @ V)[:55], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(
        operator.diagonal(), torch.from_numpy(K).diagonal(), rtol=1e-5, atol=1e-5
    )
