from dataclasses import replace

import numpy as np
import pytest
from small_runs import run, small_config

from pipeline.artefact import read_json
from pipeline.data.split import Benchmark
from pipeline.evaluation import read_predictions
from pipeline.registry import variant_config
from pipeline.solvers import KernelRidge
from pipeline.stages import job as job_module
from pipeline.stages.kernel_files import KernelBlocks
from pipeline.stages.variants import with_penultimate
from pipeline.store import FeatureStore
from pipeline.types import InputError

VARIANTS = (
    "variants={"
    "few_rows: {rows: 60}, "
    "with_penultimate: {penultimate: 1.0}, "
    "same: {set: ['kernel.center=false']}, "
    "top_layers: {set: ['sketch={kind: layers, last: 2}']}, "
    "heads: {heads: [0, 1]}, "
    "head_one: {set: ['model.head.seed=1']}, "
    "at_probe: {probe_head: true, set: ['features.output=random_direction']}}"
)

PROBES = "baselines=[linear_probe_ridge, {kind: linear_probe, c_count: 4}]"


@pytest.fixture(scope="module")
def varied(undisturbed, tmp_path_factory):
    """A run with a variant of each sort; what it shares comes from the undisturbed run's cache."""
    folder = tmp_path_factory.mktemp("variants") / "run"
    return run(folder, undisturbed.path.parent / "cache", VARIANTS, PROBES)


def scores(folder, method, split="ood_test"):
    return read_predictions(folder.predictions(method) / f"{split}.npz").scores


def test_every_variant_is_a_row_of_the_table(varied):
    methods = read_json(varied.metrics)["methods"]
    for name in ("few_rows", "with_penultimate", "top_layers", "heads", "at_probe"):
        assert set(methods[name]["splits"]) == set(methods["entk"]["splits"])
        assert methods[name]["splits"]["id_test"]["accuracy"] > 0.5


def test_a_variant_that_changes_nothing_is_the_run_itself(varied):
    assert np.array_equal(scores(varied, "same"), scores(varied, "entk"))


def test_an_ensemble_over_heads_is_the_mean_of_its_members(varied):
    mean = (scores(varied, "entk") + scores(varied, "head_one")) / 2
    assert np.allclose(scores(varied, "heads"), mean, rtol=0, atol=1e-12)


def test_fewer_rows_are_a_machine_on_the_first_of_them(varied):
    blocks = KernelBlocks.open(varied.kernel)
    selected = read_json(varied.fit("few_rows") / "fit.json")["selected"]
    path = next(iter(read_json(varied.features).values()))["store"]
    labels = FeatureStore.open(path).labels()[:60]
    Y = np.eye(labels.max() + 1)[labels]
    machine = KernelRidge(ridge=selected["ridge"])
    machine.fit(np.ascontiguousarray(blocks.train()[:60, :60]), Y - Y.mean(axis=0))
    expected = machine.predict(np.ascontiguousarray(blocks.cross("ood_test")[:, :60]))
    found = scores(varied, "few_rows") - Y.mean(axis=0)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_the_kernel_sum_weighs_both_kernels_at_a_mean_diagonal_of_one():
    rng = np.random.default_rng(0)
    phi, H, other, h = (rng.normal(size=s) for s in ((5, 7), (5, 3), (2, 7), (2, 3)))
    K, cross = with_penultimate(
        (phi @ phi.T).astype("f4"), {"t": (other @ phi.T).astype("f4")}, {"train": H, "t": h}, 0.5
    )
    entk, top = np.mean(np.sum(phi**2, axis=1)), np.mean(np.sum(H**2, axis=1))
    assert np.allclose(K, phi @ phi.T / entk + 0.5 * H @ H.T / top, atol=1e-5)
    assert np.allclose(cross["t"], other @ phi.T / entk + 0.5 * h @ H.T / top, atol=1e-5)


def test_choices_read_no_label_of_a_test_split(undisturbed, varied, tmp_path, monkeypatch):
    built = job_module.build_benchmark

    def garbled(options):
        benchmark = built(options)
        kept = ("pretrain", "train", "val")
        splits = {
            name: split if name in kept else replace(split, labels=np.zeros_like(split.labels))
            for name, split in benchmark.splits.items()
        }
        return Benchmark(benchmark.name, benchmark.classes, splits, (), benchmark.pretrain_classes)

    monkeypatch.setattr(job_module, "build_benchmark", garbled)
    blind = run(tmp_path / "run", undisturbed.path.parent / "cache", VARIANTS, PROBES)
    for method in read_json(varied.metrics)["methods"]:
        selected = [read_json(f.fit(method) / "fit.json")["selected"] for f in (blind, varied)]
        assert selected[0] == selected[1], method
        assert np.array_equal(scores(blind, method), scores(varied, method)), method


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("{set: ['benchmark.seed=1']}", "changes model, sketch, features, kernel or solver alone"),
        ("{rows: 50, penultimate: 1.0}", "give one of"),
        ("{rows: 50, set: ['sketch.size=5']}", "leave out set"),
    ],
)
def test_a_variant_of_two_minds_is_refused(tmp_path, variant, message):
    with pytest.raises(InputError, match=message):
        small_config(tmp_path, f"variants={{other: {variant}}}")


def test_impossible_variants_are_refused_before_any_work(tmp_path):
    with pytest.raises(InputError, match="5000 rows asked for"):
        run(tmp_path / "run", tmp_path / "cache", "variants={many: {rows: 5000}}")
    assert not (tmp_path / "run" / "config.yaml").exists()
    with pytest.raises(InputError, match=r"variants\.wide is not a valid config"):
        run(tmp_path / "run", tmp_path / "cache", "variants={wide: {set: ['sketch.size=-1']}}")
    deep = "variants={deep: {set: ['sketch={kind: layers, last: 99}']}}"
    with pytest.raises(InputError, match=r"^variants\.deep: sketch\.last: 99 layers"):
        run(tmp_path / "run", tmp_path / "cache", deep)


def test_kernels_of_fewer_columns_are_the_runs_own_alone(tmp_path):
    config = small_config(tmp_path, "kernel.sizes=[100]")
    layers = variant_config(config, ["sketch={kind: layers, last: 2}"], "top")
    assert (config.kernel.sizes, layers.kernel.sizes) == ((100,), ())
