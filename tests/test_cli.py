"""A user's mistake is one clear message with the config path of its cause, and exit code 2."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import cli

ROOT = Path(__file__).parents[1]
QUICKSTART = ROOT / "configs/quickstart.yaml"
LOCAL = ["executor={kind: local, workers: 1, threads: 1}", "pretrain.epochs=1", "sketch.size=500"]


@pytest.fixture
def entk(monkeypatch, capsys, tmp_path):
    """Run the command line in this process: exit code and everything it printed, on one line."""

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["entk", *arguments])
        try:
            cli.main()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        printed = capsys.readouterr()
        return code, re.sub(r"\s+", " ", printed.out + printed.err)

    return call


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
        ("benchmark.limit={train: 3}", "benchmark.limit.train: .*3 image"),
        ("model.weights=/absent.pth", "pretrain trains the weights that model.weights"),
        ("features.output=7", "output"),
        ("solver.kind=magic", "solver.kind"),
        ("selection=ood_test", "selection"),
        ("name='../escape'", "name"),
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
    for verb in ("run", "plan", "status", "report"):
        assert verb in printed


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


def test_too_little_memory_is_said_before_work_starts(entk, tmp_path):
    code, printed = run(entk, "limits.memory=1MiB")
    assert code == 2
    assert "memory" in printed
    assert not list(tmp_path.rglob("store.json"))


def test_a_report_of_a_folder_that_is_no_run_is_refused(entk, tmp_path):
    code, printed = entk("report", str(tmp_path))
    assert code == 2
    assert "no run folder" in printed
