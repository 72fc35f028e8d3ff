"""Every road's view of one kernel multiplies alike, with and without the selection rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_runs import run, small_config, stores
from thread_group import together

from pipeline.runs import RunFolder
from pipeline.stages.job import Silence, make_instrument, make_job
from pipeline.stages.kernel import make_shard
from pipeline.stages.kernel_files import KernelBlocks
from pipeline.stages.plan import make_plan
from pipeline.stages.road import view_spec
from pipeline.stages.views import ViewSpec, open_view
from pipeline.types import InputError

SIZES = ("benchmark.limit={train: 50, val: 21, id_test: 12}", "sketch.size=300", "refit=true")


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> ViewSpec:
    """The view of a finished run in memory that refits."""
    base = tmp_path_factory.mktemp("views")
    folder = run(base / "run", base / "cache", *SIZES)
    config = small_config(base / "cache", *SIZES)
    job = make_job(config, RunFolder(folder.path), Silence())
    return view_spec(job, stores(folder), make_plan(job, make_instrument(config)))


def products(view, refit: bool):
    """K V, its diagonal, and every split's product, whole on every worker."""
    operator = view.operator(refit=refit)
    V = torch.randn(operator.n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own = V[operator.rows]
    found = {
        "K": operator.gather(operator.matvec(own)),
        "diagonal": operator.gather(operator.diagonal()[:, None]),
    }
    splits = [name for name in view.spec.sizes if name != "train" and not (refit and name == "val")]
    return found | {name: view.cross(name, refit=refit).matvec(own) for name in splits}


@pytest.fixture(scope="module")
def expected(spec):
    return {refit: products(open_view(spec), refit) for refit in (False, True)}


def assert_alike(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        scale = float(values.abs().max())
        torch.testing.assert_close(found[name], values, rtol=0, atol=1e-6 * scale, msg=name)


@pytest.mark.parametrize("refit", [False, True], ids=["train", "refit"])
@pytest.mark.parametrize("workers", [1, 5])
def test_shards_multiply_as_the_whole(spec, expected, tmp_path_factory, workers, refit):
    work = tmp_path_factory.mktemp("kernel")
    sharded = replace(spec, road="sharded", kernel=work)
    together(workers, lambda group: make_shard(open_view(sharded, group), work, "key"))
    for found in together(workers, lambda group: products(open_view(sharded, group), refit)):
        assert_alike(found, expected[refit])


@pytest.mark.parametrize("refit", [False, True], ids=["train", "refit"])
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("resident", [False, True], ids=["streamed", "resident"])
def test_features_multiply_as_the_whole(spec, expected, workers, resident, refit):
    free = replace(spec, road="matrix_free", resident=resident)
    for found in together(workers, lambda group: products(open_view(free, group), refit)):
        assert_alike(found, expected[refit])


def test_a_worker_without_training_rows_takes_part(spec, expected):
    """With 71 rows over 5 workers the last one holds selection rows only."""
    free = replace(spec, road="matrix_free")
    held = together(5, lambda group: open_view(free, group).rows())
    assert held[-1].start == held[-1].stop
    for found in together(5, lambda group: products(open_view(free, group), False)):
        assert_alike(found, expected[False])


@pytest.mark.parametrize("refit", [False, True], ids=["train", "refit"])
def test_files_multiply_as_the_whole(spec, expected, tmp_path, refit):
    from pipeline.stages.kernel import join_refit

    folder = tmp_path / "kernel"
    folder.mkdir()
    for file in spec.kernel.rglob("*.npy"):
        target = folder / file.relative_to(spec.kernel)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(file.read_bytes())
    join_refit(folder, "val")
    on_disk = replace(spec, road="disk", kernel=folder)
    assert_alike(products(open_view(on_disk), refit), expected[refit])
    whole = np.load(folder / "refit" / "whole.npy")
    np.testing.assert_array_equal(whole, KernelBlocks.open(spec.kernel).refit())


def test_a_kernel_in_shards_is_not_taken_for_whole_blocks(spec, tmp_path):
    from pipeline.artefact import write_json

    write_json(tmp_path / "provenance.json", {"layout": "shards", "selection": "val"})
    with pytest.raises(InputError, match=r"limits\.memory: the kernel at .* for several workers"):
        KernelBlocks.open(tmp_path)
