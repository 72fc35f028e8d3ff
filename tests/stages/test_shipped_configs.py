"""The configs in configs/ run to the table: on their real data made tiny, or on synthetic JPEGs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import ROOT, events

from pipeline.artefact import read_json
from pipeline.data.living17 import subclasses
from pipeline.models.resnet import ResNet
from pipeline.registry import load_config
from pipeline.report.table import terminal_table
from pipeline.runs import RunFolder
from pipeline.stages.job import Silence
from pipeline.stages.run import run_job
from pipeline.types import InputError

JOBS = (
    "quickstart", "cifar100_superclasses", "cifar100_resnet56", "cifar100_resnet20_20000",
    "cifar100_resnet56_20000", "tiny_imagenet_superclasses", "living17",
)  # fmt: skip
ONE_PROCESS = "executor={kind: local, workers: 1, threads: 1}"
SEEN = "it has seen the target labels"


def run_config(name: str, base: Path, *overrides: str) -> RunFolder:
    """A whole run of a shipped config in this process."""
    sets = [ONE_PROCESS, f"store.root={base / 'cache'}", *overrides]
    folder = RunFolder(base / "run")
    run_job(load_config(ROOT / "configs" / name, sets), folder, Silence())
    return folder


def test_a_sketch_whose_kind_is_not_named_is_uniform() -> None:
    config = load_config(ROOT / "configs" / "quickstart.yaml", ["sketch={size: 7, seed: 3}"])
    assert (config.sketch.kind, config.sketch.size, config.sketch.seed) == ("uniform", 7, 3)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory) -> Path:
    """ImageNet's folders for Living-17: noise around one colour a superclass."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    colours = rng.integers(40, 200, (17, 3))
    for part, domain, count in (
        ("train", "source", 5),
        ("val", "source", 2),
        ("val", "target", 2),
    ):
        for colour, wnids in zip(colours, subclasses("rand", domain), strict=True):
            for wnid in wnids:
                folder = root / "imagenet" / part / wnid
                folder.mkdir(parents=True)
                for i in range(count):
                    pixels = np.clip(colour + rng.normal(0, 20, (40, 48, 3)), 0, 255)
                    Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{wnid}_{i}.JPEG")
    return root


def checkpoint(path: Path, *, supervised: bool) -> Path:
    """A random ResNet-18 as MoCo-v2 leaves it, or with ImageNet's classifier."""
    torch.manual_seed(0)
    state = ResNet(18).state_dict()
    if not supervised:
        encoder = {n: tensor for n, tensor in state.items() if not n.startswith("fc.")}
        projection = {
            f"fc.{i}.{part}": torch.ones(2) for i in (0, 2) for part in ("weight", "bias")
        }
        state = {f"module.encoder_q.{n}": t for n, t in (encoder | projection).items()}
        state |= {f"module.encoder_k.{n}": t for n, t in encoder.items()}
        state["module.queue"] = torch.ones(2, 3)
        state = {"epoch": 800, "arch": "resnet50", "state_dict": state, "optimizer": {}}
    torch.save(state, path)
    return path


SMALL_LIVING17 = (
    "model.depth=18",
    "sketch.size=4000",
    "benchmark.preprocess={resize: 40, crop: 32}",
)


def test_living17_runs_from_a_moco_checkpoint_and_is_fitted_again_on_all_rows(
    imagenet, tmp_path, monkeypatch
):
    monkeypatch.setenv("ENTK_DATA", str(imagenet))
    weights = checkpoint(tmp_path / "moco.pth.tar", supervised=False)
    probe = "baselines=[{kind: linear_probe, c_count: 3}]"
    folder = run_config(
        "living17.yaml", tmp_path, f"model.weights={weights}", *SMALL_LIVING17, probe
    )
    metrics = read_json(folder.metrics)
    assert metrics["selection"]["split"] == "val"
    assert set(metrics["methods"]) == {"entk", "entk_early_stopping", "linear_probe"}
    sizes = {name: s["n"] for name, s in metrics["methods"]["entk"]["splits"].items()}
    assert sizes == {"val": 17, "id_test": 68, "ood_test": 68}
    assert metrics["methods"]["entk"]["splits"]["id_test"]["accuracy"] > 3 / 17
    with np.load(folder.fit("entk") / "dual.npz") as fitted:
        assert fitted["dual"].shape == (170, 17)
        assert fitted["selection_dual"].shape == (153, 17)
    notes = read_json(folder.notes)
    assert "MoCo" in " ".join(notes["network"])
    assert "train: 170 images found, living17 has 44200" in notes["benchmark"]
    assert SEEN not in (folder.path / "report.md").read_text()


@pytest.mark.slow
def test_the_papers_protocol_on_a_supervised_backbone_says_what_the_backbone_has_seen(
    imagenet, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("ENTK_DATA", str(imagenet))
    weights = checkpoint(tmp_path / "supervised.pth", supervised=True)
    protocol = ("selection=id_test", "benchmark.holdout=0", "refit=false", "baselines=[]")
    limits = "benchmark.limit={id_test: 34, ood_test: 34}"
    folder = run_config(
        "living17.yaml", tmp_path, f"model.weights={weights}", *SMALL_LIVING17, *protocol, limits
    )
    metrics = read_json(folder.metrics)
    assert metrics["selection"]["split"] == "id_test"
    assert set(metrics["methods"]["entk"]["splits"]) == {"id_test", "ood_test"}
    with np.load(folder.fit("entk") / "dual.npz") as fitted:
        assert fitted["dual"].shape == (170, 17)
    assert SEEN in caplog.text
    assert SEEN in (folder.path / "report.md").read_text()
    assert SEEN in (folder.path / "report.html").read_text()


def test_tiny_imagenet_runs_on_its_real_photographs(real_data, tmp_path, monkeypatch):
    if not (real_data / "tiny_imagenet_superclasses").is_dir():
        pytest.skip("no Tiny-ImageNet superclasses in ENTK_DATA")
    monkeypatch.setenv("ENTK_DATA", str(real_data))
    folder = run_config(
        "tiny_imagenet_superclasses.yaml",
        tmp_path,
        "benchmark.limit={train: 84, val: 28, id_test: 42, ood_test: 42}",
        "sketch.size=20000",
        "baselines=[linear_probe_ridge]",
    )
    methods = read_json(folder.metrics)["methods"]
    assert methods["entk"]["splits"]["id_test"]["n"] == 42
    # Fourteen classes, six images of each: chance is 7 %.
    assert methods["entk"]["splits"]["id_test"]["accuracy"] > 0.2
    assert SEEN in (folder.path / "report.md").read_text()
    assert terminal_table(folder.path) is not None
    assert len(events(folder, "run_done")) == 1


@pytest.mark.parametrize("name", JOBS)
def test_a_shipped_config_is_valid_and_says_which_data_it_needs(name, monkeypatch):
    config = ROOT / "configs" / f"{name}.yaml"
    monkeypatch.setenv("ENTK_DATA", "/data")
    assert load_config(config).name == name
    monkeypatch.delenv("ENTK_DATA")
    if name != "quickstart":
        with pytest.raises(InputError, match=r"ENTK_DATA is not set.*README"):
            load_config(config)
