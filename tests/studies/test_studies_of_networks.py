"""The studies that train their own small networks, in quick forms, from the command line."""

import numpy as np
import pytest

from pipeline.artefact import read_json

OUT = "runs/analyses"


def findings(tmp_path, name):
    return read_json(tmp_path / OUT / name / "analysis.json")


def test_pseudo_and_full_kernels_are_compared_over_widths(study, tmp_path):
    code, printed = study(
        "pseudo_kernel", "networks=[convnet]", "widths={convnet: [4, 8, 16]}", "rows=8", "test=8",
        "train=40", "epochs=[0, 1]", config="pseudo_kernel_quick",
    )  # fmt: skip
    assert code == 0, printed
    found = findings(tmp_path, "pseudo_kernel_quick")
    assert {row["width"] for row in found["table"]} == {4, 8, 16}
    assert all(row["error"] > 0 for row in found["table"])
    assert {"convnet, epoch 0", "convnet, epoch 1"} <= set(found["numbers"])


def test_regression_follows_the_network_at_first(study, tmp_path):
    code, printed = study(
        "around_network", "widths=[64]", "train=20", "test=20", "steps=[1, 5]", "warm_epochs=1"
    )
    assert code == 0, printed
    rows = findings(tmp_path, "around_network")["table"]
    assert {row["point"] for row in rows} == {"untrained", "pretrained", "fine_tuned"}
    first = [row["full against network"] for row in rows if row["steps"] == 1]
    assert max(first) < 0.3


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.full((20, 5), 0.2), None),
        (np.full((20, 5), 0.3), "soft target 0 is no distribution: its sum is 1.5"),
        (np.full((20, 4), 0.25), "(20, 4), expected floats (20, 5)"),
        (None, "expected one_hot, soft or an .npy file"),
    ],
)
def test_soft_targets_come_from_a_file(study, tmp_path, targets, message):
    if targets is not None:
        np.save(tmp_path / "soft.npy", targets)
    code, printed = study(
        "around_network", "widths=[8]", "train=20", "test=5", "steps=[1]", "points=[untrained]",
        f"targets={tmp_path / 'soft.npy'}",
    )  # fmt: skip
    assert code == (0 if message is None else 2), printed
    assert message is None or message in printed


def test_steps_are_second_order_and_paths_are_drawn(study, tmp_path):
    code, printed = study("learning_path", "n=60", "width=16", "epochs=4", "after=[0, 2]")
    assert code == 0, printed
    found = findings(tmp_path, "learning_path")
    assert [row["order"] for row in found["table"]] == pytest.approx([2] * 4, abs=0.15)
    assert [plot["name"] for plot in found["plots"]] == ["steps", "paths"]
    assert (tmp_path / OUT / "learning_path/figures/paths.png").is_file()


def test_every_teacher_has_its_students(study, tmp_path):
    code, printed = study("distillation", "n=40", "epochs=2", "noise=[0.3]", "seeds=2", "test=50")
    assert code == 0, printed
    rows = findings(tmp_path, "distillation")["table"]
    assert [row["target"] for row in rows] == [
        "one-hot", "label smoothing", "self-distillation", "early-stopped teacher", "Filter-KD",
    ]  # fmt: skip
    assert all(row["‖p_target − p*‖"] > 0 for row in rows)


def test_students_learn_from_images_too(study, tmp_path):
    code, printed = study(
        "distillation", "benchmark={kind: digits}", "network=convnet", "width=4", "n=40",
        "epochs=1", "noise=[0.3]", "seeds=1",
    )  # fmt: skip
    assert code == 0, printed
    assert findings(tmp_path, "distillation")["table"][0]["‖p_target − p*‖"] is None


def test_look_ahead_ranks_candidates_as_retraining_does(study, tmp_path):
    code, printed = study(
        "lookahead", "widths=[64]", "labelled=15", "pool=12", "warm_steps=150", "steps=150",
        "seeds=1",
    )  # fmt: skip
    assert code == 0, printed
    [row] = findings(tmp_path, "lookahead")["table"]
    assert row["full: Spearman"] > 0.5
    assert set(row) >= {"SGD step: Spearman", "retraining, s"}


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("pseudo_kernel", "networks=[resnet]", "widths of resnet are missing"),
        ("pseudo_kernel", "networks=[perceptron]", "networks"),
        ("pseudo_kernel", "epochs=[2, 1]", "numbers go up"),
        ("pseudo_kernel", "rows=100000", "rows: 100000 samples are asked for"),
        ("around_network", "steps=[]", "steps"),
        ("around_network", "benchmark={kind: diggits}", "diggits"),
        ("lookahead", "network=transformer", "network"),
        ("lookahead", "labelled=100000", "labelled: 100000 labelled images"),
        ("inductive_bias", "widths=[-5]", "widths.0"),
        ("inductive_bias", "tanh=[[0]]", "tanh.0"),
        ("linearized_depth", "layers=[9]", "layers.0"),
        ("learning_path", "step_range=[1.0, 0.1]", "goes from a small one"),
        ("distillation", "noise=[1.5]", "noise"),
    ],
)
def test_a_mistake_in_a_config_is_one_message(study, name, override, message):
    quick = f"{name}_quick" if name in ("pseudo_kernel", "linearized_depth") else None
    code, printed = study(name, override, config=quick)
    assert code == 2, printed
    assert message in printed
    assert "Traceback" not in printed
