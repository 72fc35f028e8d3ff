"""A user's mistake is one clear message with the config path of its cause, and exit code 2."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import pipeline

ROOT = Path(__file__).parents[1]
QUICKSTART = ROOT / "configs/quickstart.yaml"
LOCAL = ["executor={kind: local, workers: 1, threads: 1}", "pretrain.epochs=1", "sketch.size=500"]


def run(entk, *overrides: str, config: Path = QUICKSTART) -> tuple[int, str]:
    sets = [part for text in (*LOCAL, *overrides) for part in ("--set", text)]
    return entk("run", str(config), *sets)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sketch.sise=3", "sketch.sise: unknown key. Did you mean 'size'?"),
        ("skecth.size=3", "skecth: unknown key. Did you mean 'sketch'?"),
        ("sketch.size=many", "sketch.size: .*found 'many'"),
        ("sketch.size=10000000", "sketch.size: 10,000,000 parameters are asked for"),
        ("model={kind: resnet51}", "model.kind: expected one of .*found 'resnet51'"),
        ("benchmark={kind: cifar100_superclasses}", "benchmark.path: this key is required"),
        ("benchmark={kind: cifar100_superclasses, path: /absent}", "/absent"),
        ("benchmark={kind: cifar100_superclasses, path: '${ENTK_DATA_X}'}", "ENTK_DATA_X is not"),
        ("benchmark.limit={train: 3}", "benchmark.limit.train: .*3 sample"),
        ("model.weights=/absent.pth", "pretrain trains the weights that model.weights"),
        ("features.output=7", "output"),
        ("solver.kind=magic", "solver.kind"),
        ("selection=ood_test", "selection"),
        ("name='../escape'", "name"),
        ("sketch.size=true", "sketch: size cannot be true"),
        ("solver.ridge=.nan", "solver.ridge: .*found nan"),
        ("solver.ridge=[]", "solver.ridge: .*1 value"),
        ("baselines=[{kind: finetune, learning_rates: []}]", "learning_rates: .*1 value"),
        ("kernel.sizes=[501]", "kernel.sizes: 501 columns are asked for, the sketch has 500"),
        ("benchmark.preprocess.channels=3", r"model: .*does not run on a batch \(2, 3, 16, 16\)"),
        ("pretrain.learning_rate=1e30", "pretrain.learning_rate: training diverged"),
    ],
)
def test_a_mistake_in_the_config_is_one_message_and_exit_code_2(entk, override, message, tmp_path):
    code, printed = run(entk, override)
    assert code == 2, printed
    assert re.search(message, printed), printed
    assert "Traceback" not in printed
    assert not list(tmp_path.rglob("provenance.json"))


def test_a_missing_config_is_named(entk):
    code, printed = entk("run", "absent.yaml")
    assert code == 2
    assert "no config file at absent.yaml" in printed


def test_help_teaches_the_verbs(entk):
    code, printed = entk("--help")
    assert code == 0
    verbs = ["run", "plan", "status", "report", "track", "refeaturize", "gc", "analyse", "features"]
    assert sorted(verbs, key=lambda verb: printed.index(f"│ {verb} ")) == verbs


def test_the_version_is_that_of_the_package(entk):
    assert entk("--version") == (0, f"entk {pipeline.__version__} ")


def arrays(path: Path, **changes) -> Path:
    """An archive of tiny images of two classes."""
    rng = np.random.default_rng(0)
    content = {}
    for split, n in {"train": 40, "id_test": 20, "ood_test": 20}.items():
        labels = np.arange(n) % 2
        images = rng.integers(0, 200, (n, 8, 8), dtype=np.uint8)
        content[f"{split}_images"] = images + 50 * labels[:, None, None].astype(np.uint8)
        content[f"{split}_labels"] = labels
    np.savez(path, **{**content, **changes})
    return path


def archive_run(entk, path: Path, *overrides: str) -> tuple[int, str]:
    benchmark = f"benchmark={{kind: arrays, path: {path}, preprocess: {{channels: 1}}}}"
    return run(entk, benchmark, "pretrain=null", "baselines=[]", *overrides)


def test_the_users_own_arrays_run_to_the_table(entk, tmp_path):
    code, printed = archive_run(entk, arrays(tmp_path / "data.npz"))
    assert code == 0, printed
    assert "eNTK, converged" in printed


def regression(rng: np.random.Generator) -> dict[str, np.ndarray]:
    sizes = {"train": 40, "id_test": 20, "ood_test": 20}
    return {f"{split}_labels": rng.normal(size=n) for split, n in sizes.items()}


@pytest.mark.parametrize("method", ["linear_probe", "finetune"])
def test_a_method_that_learns_classes_is_refused_for_a_regression(entk, tmp_path, method):
    path = arrays(tmp_path / "data.npz", **regression(np.random.default_rng(0)))
    code, printed = archive_run(entk, path, f"baselines=[{method}]")
    assert code == 2
    assert f"baselines: {method}: learns classes" in printed
    assert not list(tmp_path.rglob("store.json"))


def test_a_method_that_trains_on_images_is_refused_for_feature_vectors(entk, tmp_path):
    rng = np.random.default_rng(0)
    vectors = {f"{s}_features": rng.normal(size=(20, 6)) for s in ("train", "id_test")}
    labels = {f"{s}_labels": np.arange(20) % 2 for s in ("train", "id_test")}
    np.savez(tmp_path / "data.npz", **vectors, **labels)
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef make():\n"
        "    return nn.Sequential(nn.Linear(6, 30), nn.GELU(), nn.Linear(30, 2))\n"
    )
    code, printed = archive_run(
        entk,
        tmp_path / "data.npz",
        "baselines=[finetune]",
        f"model={{kind: factory, path: '{tmp_path / 'net.py'}:make'}}",
        "sketch.size=50",
    )
    assert code == 2
    assert "finetune: trains on images" in printed


def test_a_benchmark_without_a_split_to_pretrain_on_is_refused(entk, tmp_path):
    path = arrays(tmp_path / "data.npz")
    code, printed = archive_run(entk, path, "pretrain={}")
    assert code == 2
    assert "pretrain: the benchmark data has no split to pretrain on" in printed


@pytest.mark.slow
def test_float64_arithmetic_is_the_reference_that_float32_rounds(entk, tmp_path):
    path, kernels = arrays(tmp_path / "data.npz"), []
    for precision in ("float64", "float32"):
        override = f"features={{compute_dtype: {precision}, dtype: float32}}"
        code, printed = archive_run(entk, path, f"name={precision}", override)
        assert code == 0, printed
        kernels.append(np.load(tmp_path / "runs" / precision / "kernel" / "train.npy"))
    np.testing.assert_allclose(kernels[1], kernels[0], rtol=1e-4, atol=1e-4 * kernels[0].max())


def test_a_label_out_of_range_is_refused_before_work_starts(entk, tmp_path):
    labels = np.arange(20) % 2
    labels[3] = -1
    code, printed = archive_run(entk, arrays(tmp_path / "data.npz", id_test_labels=labels))
    assert code == 2
    assert "label" in printed
    assert "-1" in printed


def test_weights_with_nan_are_refused_by_name(entk, tmp_path):
    from pipeline.models.small_cnn import SmallCNNOptions, build

    network = build(SmallCNNOptions())
    state = network.module.state_dict()
    name = next(iter(state))
    state[name].fill_(float("nan"))
    torch.save(state, tmp_path / "nan.pth")
    code, printed = archive_run(
        entk, arrays(tmp_path / "data.npz"), f"model.weights={tmp_path / 'nan.pth'}"
    )
    assert code == 2
    assert name in printed


def test_a_network_whose_gradients_overflow_stops_with_the_samples_name(entk, tmp_path):
    from pipeline.models.small_cnn import SmallCNNOptions, build

    state = build(SmallCNNOptions()).module.state_dict()
    torch.save({name: 1e15 * tensor for name, tensor in state.items()}, tmp_path / "huge.pth")
    code, printed = archive_run(
        entk, arrays(tmp_path / "data.npz"), f"model.weights={tmp_path / 'huge.pth'}"
    )
    assert code == 2
    assert "NaN or infin" in printed or "not finite" in printed
    assert not list(tmp_path.rglob("done/*.json"))


NAN_AT_ZERO = """
import torch
from torch import nn


class Length(nn.Module):
    def forward(self, x):
        return (x.flatten(1) ** 2).sum(dim=1, keepdim=True).sqrt()


def make():
    lengths = nn.Sequential(nn.Conv2d(1, 30, 3, bias=False), Length())
    return nn.Sequential(lengths, nn.Linear(1, 2))
"""


def test_nan_gradients_stop_with_the_samples_name_and_leave_no_finished_shard(entk, tmp_path):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 200, (20, 8, 8), dtype=np.uint8)
    images[7] = 0
    (tmp_path / "net.py").write_text(NAN_AT_ZERO)
    code, printed = archive_run(
        entk,
        arrays(tmp_path / "data.npz", id_test_images=images),
        f"model={{kind: factory, path: '{tmp_path / 'net.py'}:make'}}",
        "sketch.size=200",
        "features.batch_size=1",
    )
    assert code == 2, printed
    assert "NaN or infin" in printed
    assert "id_test_images:7 (split id_test)" in printed
    done = {file.parent.parent for file in tmp_path.rglob("done/*.json")}
    assert len(done) < len(list(tmp_path.rglob("store.json")))
    code, again = archive_run(
        entk,
        tmp_path / "data.npz",
        f"model={{kind: factory, path: '{tmp_path / 'net.py'}:make'}}",
        "sketch.size=200",
    )
    assert code == 2, again
    assert "id_test_images:7" in again


def test_too_little_memory_is_said_before_work_starts(entk, tmp_path):
    code, printed = run(entk, "limits.memory=1MiB")
    assert code == 2
    assert "memory" in printed
    assert not list(tmp_path.rglob("store.json"))


def test_a_report_of_a_folder_that_is_no_run_is_refused(entk, tmp_path):
    code, printed = entk("report", str(tmp_path))
    assert code == 2
    assert "no run folder" in printed


def test_an_interrupted_run_says_how_it_continues(entk, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.stages.run.make_job", interrupted)
    code, printed = run(entk)
    assert code == 130
    assert "stopped; the same command continues" in printed


@pytest.mark.parametrize("place", ["a file", "a file/below"])
def test_a_folder_that_cannot_be_made_is_named(entk, tmp_path, place):
    (tmp_path / "a file").write_text("x")
    sets = [part for text in LOCAL for part in ("--set", text)]
    code, printed = entk("run", str(QUICKSTART), *sets, "--out", place)
    assert code == 2
    assert f"error: {place}" in printed
    assert "Traceback" not in printed


REGISTRY = QUICKSTART.parents[1] / "cluster" / "kubernetes" / "registry.yaml"


@pytest.mark.parametrize(
    "command",
    [["run", QUICKSTART], ["report", "runs/a"], ["refeaturize", REGISTRY], ["gc", REGISTRY]],
    ids=lambda command: command[0],
)
def test_a_url_is_refused_as_the_place_of_results_and_makes_no_folder_here(
    entk, tmp_path, monkeypatch, command
):
    monkeypatch.setenv("ENTK_DATA", str(tmp_path))
    code, printed = entk(*map(str, command), "--out", "s3://bucket/out")
    assert code == 2
    assert "goes to a path on a disk or a mount, found s3:/bucket/out" in printed
    assert not list(tmp_path.iterdir())


def test_one_run_gets_a_page_of_its_own_where_it_is_asked_for(entk, tmp_path):
    code, printed = archive_run(entk, arrays(tmp_path / "data.npz"), "name=one")
    assert code == 0, printed
    code, printed = entk("report", "runs/one", "--out", "page.html")
    assert code == 0, printed
    assert "eNTK" in (tmp_path / "page.html").read_text()


def test_a_plan_fits_a_terminal(entk):
    sets = [part for text in LOCAL for part in ("--set", text)]
    code, printed = entk("plan", str(QUICKSTART), *sets)
    assert code == 0, printed
    for word in ("memory a process", "read while solving", "matrix_free"):
        assert word in printed


def test_a_plan_states_every_road_and_other_sizes(entk, tmp_path):
    machine = tmp_path / "machine.yaml"
    machine.write_text("{nodes: 8, gpus: 8, gpu_memory: 80GiB, memory: 1TiB, gemm_flops: 2.0e14}")
    code, printed = entk(
        "plan", str(QUICKSTART), "--scale", "--machine", str(machine),
        *(part for text in LOCAL for part in ("--set", text)), "--set", "features.device=cpu",
    )  # fmt: skip
    assert code == 0, printed
    for words in ("memory *", "disk", "matrix_free", "kernel memory: K and what is solved"):
        assert words in printed
    for size in ("50,000", "300,000", "1,300,000", "1,000", "64"):
        assert size in printed
