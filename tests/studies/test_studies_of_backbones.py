"""The studies of pretrained backbones, in quick forms, from the command line."""

from pipeline.artefact import read_json

OUT = "runs/analyses"


def findings(tmp_path, name):
    return read_json(tmp_path / OUT / name / "analysis.json")


def test_probing_takes_energy_away_and_steps_go_as_predicted(study, tmp_path):
    code, printed = study("head_preparation", config="head_preparation_quick")
    assert code == 0, printed
    rows = findings(tmp_path, "head_preparation_quick")["table"]
    assert [row["probe epochs"] for row in rows] == [0, 3, 30]
    assert rows[2]["energy"] < rows[0]["energy"]
    assert rows[2]["direction"] > rows[0]["direction"]
    assert all(row["missed share"] < 0.05 for row in rows)


def test_a_richer_head_and_smoothing_are_options(study, tmp_path):
    code, printed = study(
        "head_preparation", "head=mlp", "smoothing=0.1", "probe_epochs=[2]", "train=40",
        config="head_preparation_quick",
    )  # fmt: skip
    assert code == 0, printed
    assert findings(tmp_path, "head_preparation_quick")["table"][0]["energy"] > 0


def test_similarity_has_a_parameter_cosine_within_one_architecture(study, tmp_path):
    code, printed = study("similarity", "rows=30", config="similarity_quick")
    assert code == 0, printed
    rows = {(row["a"], row["b"]): row for row in findings(tmp_path, "similarity_quick")["table"]}
    assert len(rows) == 3
    assert 0 < rows["seed 0", "seed 1"]["parameter cosine"] < 1
    assert rows["seed 0", "relu"]["parameter cosine"] is None
    assert 0 < rows["seed 0", "relu"]["kernel alignment"] < 1


def test_one_network_is_compared_on_two_tasks(study, tmp_path):
    code, printed = study(
        "similarity", "rows=30", "models={net: {kind: small_cnn}}",
        "tasks={other digits: {kind: digits, seed: 1}}", config="similarity_quick",
    )  # fmt: skip
    assert code == 0, printed
    [row] = findings(tmp_path, "similarity_quick")["table"]
    assert (row["a"], row["b"]) == ("net", "net on other digits")
    assert row["kernel alignment"] is None
    assert 0 < row["parameter cosine"] < 1
    assert 0 < row["Task2Vec"] < 1


def test_backbones_are_ranked_before_they_are_tuned(study, tmp_path):
    code, printed = study("transfer", "train=100", "tune_epochs=1", config="transfer_quick")
    assert code == 0, printed
    found = findings(tmp_path, "transfer_quick")
    assert [row["backbone"] for row in found["table"]] == ["wide", "narrow", "tiny"]
    assert "ranks 3 backbones with Spearman" in found["notes"][0]
    curves = found["plots"][1]["panels"][0]["series"]
    assert len(curves) == 6
    assert found["numbers"]["GCV misses by"] < 0.5
    assert (tmp_path / OUT / "transfer_quick/figures/risk.svg").is_file()


def test_one_network_cannot_be_compared(study):
    code, printed = study(
        "similarity", "models={alone: {kind: small_cnn}}", config="similarity_quick"
    )
    assert code == 2
    assert "two networks or more" in printed
