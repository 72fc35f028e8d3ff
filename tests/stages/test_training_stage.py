"""The training baselines inside a run: digits, two epochs, one learning rate."""

import pickle
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_runs import small_config

from pipeline.artefact import ForeignArtefactError, read_json
from pipeline.baselines import grid
from pipeline.baselines.finetune import FinetuneOptions
from pipeline.baselines.lp_ft import LpFtOptions
from pipeline.baselines.scratch import ScratchOptions
from pipeline.data.split import Benchmark
from pipeline.distributed.worker import computing_threads
from pipeline.evaluation import evaluate
from pipeline.runs import RunFolder
from pipeline.stages import training
from pipeline.stages.baselines import run_baselines
from pipeline.stages.features import featurize
from pipeline.stages.job import Silence, make_instrument, make_job
from pipeline.stages.pretrain import WEIGHTS, pretrain
from pipeline.stages.status import read_events
from pipeline.types import InputError

METHODS = ["finetune", "scratch", "lp_ft"]
SHORT = {"epochs": 2, "augmentation": "crop", "extensions": 0}


PLAN = SimpleNamespace(
    workers=1, threads=1, batch_size=32, rows_per_shard=512, device="cpu", gpus_per_worker=0.0
)
"""What of a plan these stages read; nothing here is to depend on the machine."""


def short(kind, **options):
    rates = {"learning_rates": [0.01]} if kind != "lp_ft" else {"learning_rates": [0.001]}
    return {"kind": kind, **SHORT, **rates, **options}


class Prepared:
    """A run with its features; each test trains in a copy of its folder."""

    def __init__(self, base):
        self.cache = base / "cache"
        self.job = self.make_job(base / "run", [])
        self.instrument = make_instrument(self.job.config, pretrain(self.job))
        self.plan = PLAN
        self.stores = featurize(self.job, self.instrument, self.plan)

    def make_job(self, path, baselines, progress=None, **changes):
        executor = "executor={kind: local, workers: 1, threads: 1}"
        config = small_config(self.cache, "sketch.size=50", executor)
        values = config.model_dump() | {"baselines": baselines} | changes
        path.mkdir(parents=True, exist_ok=True)
        config = type(config).model_validate(values)
        return make_job(config, RunFolder(path), progress or Silence())

    def fresh(self, path, baselines, progress=None, **changes):
        shutil.copytree(self.job.folder.path, path)
        return self.make_job(path, baselines, progress, **changes)

    def train(self, job):
        run_baselines(job, self.instrument, self.plan, self.stores)
        return job


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return Prepared(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def finished(prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    return prepared.train(prepared.fresh(folder, [short(kind) for kind in METHODS]))


@pytest.fixture
def training_forbidden(monkeypatch):
    monkeypatch.setattr(grid, "train", lambda *a, **k: pytest.fail("trained again"))


def table(job):
    folder = job.folder.path
    return evaluate(folder / "predictions", folder / "fit", benchmark="digits")["methods"]


def scores(job, method, split="ood_test"):
    with np.load(job.folder.predictions(method) / f"{split}.npz") as arrays:
        return arrays["scores"]


def test_every_method_is_scored_on_every_split(finished):
    found = table(finished)
    assert set(found) == set(METHODS)
    for method in METHODS:
        assert list(found[method]["splits"]) == finished.evaluated
        for split in found[method]["splits"].values():
            assert all(np.isfinite(value) for value in split.values())
        fit = read_json(finished.folder.fit(method) / "fit.json")
        assert fit["selected"]["epoch"] == found[method]["selected"]["epoch"]
        points = finished.folder.path / "baselines" / method
        assert [path.name for path in points.glob("lr_*")] == [
            f"lr_{fit['selected']['learning_rate']}"
        ]
    assert found["lp_ft"]["splits"]["id_test"]["accuracy"] > 0.6


def test_provenance_names_what_a_method_was_made_from(finished):
    for method in METHODS:
        found = read_json(finished.folder.fit(method) / "provenance.json")
        assert set(found["samples"]) == set(found["labels"]) == set(finished.featurized)
        assert found["options"]["epochs"] == 2
        assert len(found["network"]["state"]) == 64
    states = {
        read_json(finished.folder.fit(m) / "provenance.json")["network"]["state"] for m in METHODS
    }
    assert len(states) == 3


def test_the_same_config_again_trains_nothing(prepared, finished, training_forbidden):
    events = len(read_events(finished.folder.events))
    prepared.train(finished)
    assert len(read_events(finished.folder.events)) == events


def test_training_starts_at_the_weights_that_the_run_trained(prepared):
    weights = load_file(prepared.job.folder.model / WEIGHTS)
    model = prepared.instrument.model_options
    tuned, _ = training.starting_point(FinetuneOptions(), model, 5, None)
    drawn, _ = training.starting_point(ScratchOptions(), model, 5, None)
    name = "features.0.weight"
    assert torch.equal(tuned().state_dict()[name], weights[name])
    assert not torch.equal(drawn().state_dict()[name], weights[name])
    assert tuned().fc.out_features == 5


class Interrupted(Silence):
    """Ends the process's work after some epochs, as a signal would."""

    def __init__(self, epochs):
        self.left = epochs

    def advance(self, event):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


class Counted(Silence):
    def __init__(self):
        self.epochs = 0
        self.started = []

    def start(self, stage, total, done=0, unit="rows"):
        self.started.append((stage, total, done, unit))

    def advance(self, event):
        self.epochs += event.rows


def test_an_interrupted_grid_goes_on_where_it_stopped(prepared, tmp_path):
    baselines = [short("finetune", learning_rates=[0.003, 0.01, 0.03])]
    whole = prepared.train(prepared.fresh(tmp_path / "whole", baselines))
    broken = prepared.fresh(tmp_path / "run", baselines, Interrupted(epochs=3))
    with pytest.raises(KeyboardInterrupt):
        prepared.train(broken)
    assert not broken.folder.fit("finetune").exists()
    watch = Counted()
    resumed = prepared.train(prepared.make_job(tmp_path / "run", baselines, watch))
    assert watch.epochs == 6 - 3
    assert watch.started == [("finetune", 6, 2, "epochs")]
    for split in whole.evaluated:
        assert np.array_equal(
            scores(resumed, "finetune", split), scores(whole, "finetune", split)
        ), split
    assert not list((tmp_path / "run").rglob("*.checkpoint"))


def test_a_new_rate_trains_that_rate_only(prepared, finished, tmp_path):
    shutil.copytree(finished.folder.path, tmp_path / "run")
    watch = Counted()
    baselines = [short("finetune", learning_rates=[0.01, 0.03])]
    prepared.train(prepared.make_job(tmp_path / "run", baselines, watch))
    assert watch.epochs == 2


def test_a_method_that_diverges_everywhere_is_listed_with_the_reason(prepared, finished, tmp_path):
    shutil.copytree(finished.folder.path, tmp_path / "run")
    baselines = [short("finetune", learning_rates=[1e29, 1e30])]
    job = prepared.train(prepared.make_job(tmp_path / "run", baselines))
    found = table(job)["finetune"]
    assert found == {
        "selected": None,
        "splits": {},
        "missing": "every learning rate diverged",
    }
    fit = read_json(job.folder.fit("finetune") / "fit.json")
    assert all("diverged" in point for point in fit["grid"])


def test_labels_of_test_splits_change_neither_training_nor_choice(
    prepared, finished, tmp_path, training_forbidden
):
    shutil.copytree(finished.folder.path, tmp_path / "run")
    job = prepared.make_job(tmp_path / "run", [short(kind) for kind in METHODS])
    splits = {
        name: split
        if name in ("pretrain", "train", "val")
        else replace(split, labels=np.zeros_like(split.labels))
        for name, split in job.benchmark.splits.items()
    }
    garbage = Benchmark("digits", job.benchmark.classes, splits, (), job.benchmark.pretrain_classes)
    job = prepared.train(replace(job, benchmark=garbage))
    for method in METHODS:
        path = job.folder.fit(method) / "fit.json"
        assert read_json(path) == read_json(finished.folder.fit(method) / "fit.json")
        assert np.array_equal(scores(job, method), scores(finished, method))


def test_refitted_lp_ft_starts_from_a_probe_that_has_not_seen_the_selection_rows(
    prepared, tmp_path
):
    probe = {"kind": "linear_probe", "c_count": 4}
    plain = prepared.train(prepared.fresh(tmp_path / "plain", [probe, short("lp_ft")]))
    refit = prepared.fresh(tmp_path / "run", [probe, short("lp_ft")], refit=True)
    prepared.train(refit)
    own = refit.folder.path / "baselines" / "lp_ft" / "probe"
    with (
        np.load(own / "model.npz") as used,
        np.load(plain.folder.fit("linear_probe") / "model.npz") as held_out,
        np.load(refit.folder.fit("linear_probe") / "model.npz") as refitted,
    ):
        assert np.array_equal(used["weights"], held_out["weights"])
        assert not np.array_equal(used["weights"], refitted["weights"])
    assert not (plain.folder.path / "baselines" / "lp_ft" / "probe").exists()
    val, other = (scores(refit, "lp_ft", s) for s in ("val", "id_test"))
    assert np.array_equal(val, scores(plain, "lp_ft", "val"))
    assert not np.array_equal(other, scores(plain, "lp_ft", "id_test"))


def test_scores_that_are_no_numbers_are_a_divergence(prepared, tmp_path, monkeypatch):
    def broken(*arguments, **options):
        fit = grid.tune(*arguments, **options)
        fit.scores["ood_blur"][0, 0] = np.nan
        return fit

    monkeypatch.setattr(training, "tune", broken)
    job = prepared.train(prepared.fresh(tmp_path / "run", [short("scratch")]))
    assert table(job)["scratch"]["missing"] == (
        "the chosen network's scores are not finite on ood_blur"
    )


def test_bare_names_stand_for_the_papers_grids(prepared, tmp_path):
    config = small_config(tmp_path, "baselines=[finetune, scratch, lp_ft]")
    assert [options.kind for options in config.baselines] == METHODS
    assert config.baselines[2] == LpFtOptions()


def test_two_baselines_of_one_kind_are_refused(tmp_path):
    with pytest.raises(InputError, match="named twice: finetune"):
        small_config(tmp_path, "baselines=[finetune, {kind: finetune, epochs: 3}]")


def test_a_worker_trains_a_point_from_the_pickled_spec(prepared, finished, tmp_path, monkeypatch):
    job = prepared.fresh(tmp_path / "run", [short("finetune")])
    spec = training.make_training_spec(
        job, job.config.baselines[0], prepared.instrument.model_options, PLAN, None
    )
    assert training.unfinished(spec) == [0]
    with computing_threads(PLAN.threads):  # as every executor's workers do
        done = training.make_trainer(pickle.loads(pickle.dumps(spec)))(0)
    assert (done.stage, done.block, done.rows) == ("finetune", 0, 2)
    assert training.unfinished(spec) == []
    monkeypatch.setattr(grid, "train", lambda *a, **k: pytest.fail("trained again"))
    prepared.train(job)
    assert np.array_equal(scores(job, "finetune"), scores(finished, "finetune"))


def test_a_worker_that_finds_other_weights_stops(prepared, tmp_path):
    job = prepared.fresh(tmp_path / "run", [short("finetune")])
    model = prepared.instrument.model_options
    spec = training.make_training_spec(job, job.config.baselines[0], model, PLAN, None)
    other = replace(spec, model=model.model_copy(update={"weights": None, "seed": 5}))
    with pytest.raises(ForeignArtefactError, match="weights changed"):
        training.make_trainer(other)


@pytest.mark.slow
def test_points_trained_on_ray_equal_those_trained_here(prepared, finished, tmp_path):
    pytest.importorskip("ray")
    baselines = [short("lp_ft")]
    job = prepared.fresh(
        tmp_path / "run", baselines, executor={"kind": "ray", "workers": 1, "threads": 1}
    )
    # The driver only chooses and scores: what it finds was trained by the worker.
    prepared.train(job)
    events = [e for e in read_events(job.folder.events) if e["event"] == "point_done"]
    assert [(e["stage"], e["learning_rate"]) for e in events] == [("lp_ft", 0.001)]
    for split in job.evaluated:
        assert np.array_equal(scores(job, "lp_ft", split), scores(finished, "lp_ft", split))


AUGMENTED = {"kind": "linear_probe_augmented", "passes": 3, "c_count": 3}


def test_the_augmented_probe_is_one_more_method_and_resumes_pass_by_pass(prepared, tmp_path):
    whole = prepared.train(prepared.fresh(tmp_path / "whole", [AUGMENTED]))
    broken = prepared.fresh(tmp_path / "run", [AUGMENTED], Interrupted(epochs=2))
    with pytest.raises(KeyboardInterrupt):
        prepared.train(broken)
    folder = broken.folder.path / "baselines" / "linear_probe_augmented"
    assert sorted(path.name for path in folder.iterdir()) == ["pass_0", "pass_1"]
    resumed = prepared.train(prepared.make_job(tmp_path / "run", [AUGMENTED]))
    stages = [e["stage"] for e in read_events(broken.folder.events) if e["event"] == "stage_done"]
    assert stages.count("linear_probe_augmented pass 1") == 1
    assert table(resumed) == table(whole)
    assert not folder.exists()
    assert table(whole)["linear_probe_augmented"]["splits"]["id_test"]["accuracy"] > 0.6


def test_an_untrained_network_sees_its_own_preprocessing(prepared):
    def spec(**changes):
        own = prepared.job.config.benchmark.preprocess.model_dump() | changes
        options = ScratchOptions.model_validate(short("scratch", preprocess=own))
        model = prepared.instrument.model_options
        return training.make_training_spec(prepared.job, options, model, PLAN, None)

    usual, other = spec(), spec(mean=[0.25], std=[0.5])
    pixels, seen = (
        np.stack(one.scored_images(one.selection).load([0, 1])) for one in (usual, other)
    )
    given = prepared.job.config.benchmark.preprocess
    expected = (pixels * given.std[0] + given.mean[0] - 0.25) / 0.5
    np.testing.assert_allclose(seen, expected, rtol=1e-5, atol=1e-5)
    assert other.provenance["preprocess"] != usual.provenance["preprocess"]
    with pytest.raises(InputError, match=r"baselines: .* 3 channels, the network takes 1"):
        spec(channels=3)
