"""The studies of Gaussian processes on new tasks, in quick forms, from the command line."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io

from pipeline.artefact import read_json

ROOT = Path(__file__).parents[2]
OUT = "runs/analyses"


def findings(tmp_path, name):
    return read_json(tmp_path / OUT / name / "analysis.json")


@pytest.fixture
def faces(tmp_path):
    """Four people whose every image is a bright bar, as the Olivetti file has them."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 40, size=(40, 64, 64))
    images[:, 28:36] += 200
    path = tmp_path / "faces.mat"
    scipy.io.savemat(path, {"faces": images.transpose(0, 2, 1).reshape(40, -1).T.astype("uint8")})
    return path


@pytest.fixture
def raster(tmp_path):
    """A smooth surface at two years, shifted between them."""
    generator = np.random.default_rng(0)
    lon, lat = generator.uniform(3, 14, 300), generator.uniform(4, 13, 300)
    year = np.where(np.arange(300) < 150, 2012, 2016)
    rate = 0.5 + 0.3 * np.sin(lon) * np.cos(lat) + 0.1 * (year == 2016)
    path = tmp_path / "raster.parquet"
    pq.write_table(pa.table({"lon": lon, "lat": lat, "year": year, "rate": rate}), path)
    return path


def test_sinusoids_are_a_study_of_the_command_line(analyse, tmp_path):
    sets = ["--set", "epochs=20", "--set", "tasks=3", "--set", "methods=[finite_ntk, blind]"]
    code, printed = analyse("sinusoids", str(ROOT / "configs/analyses/sinusoids.yaml"), *sets)
    assert code == 0, printed
    found = findings(tmp_path, "sinusoids")
    assert [row["method"] for row in found["table"]] == ["finite_ntk", "blind"]
    assert found["table"][0]["RMSE"] < found["table"][1]["RMSE"]
    assert (tmp_path / OUT / "sinusoids/figures/tasks_finite_ntk.png").is_file()


def test_seeds_of_few_shot_studies_are_cells_of_their_own(study, tmp_path):
    quick = ["epochs=5", "tasks=3", "methods=[blind]"]
    study("sinusoids", *quick, "seeds=[0]")
    cell = tmp_path / OUT / "sinusoids/cells/seed_0.json"
    kept = cell.stat().st_mtime_ns
    code, printed = study("sinusoids", *quick, "seeds=[0, 1]")
    assert code == 0, printed
    assert cell.stat().st_mtime_ns == kept
    assert findings(tmp_path, "sinusoids")["table"][0]["tasks"] == 4


@pytest.mark.parametrize(
    ("name", "methods", "message"),
    [
        ("sinusoids", "[magic]", "unknown methods magic"),
        ("sinusoids", "[]", "name at least one method"),
        ("linearized_networks", "[magic]", "unknown methods magic"),
    ],
)
def test_methods_are_checked_before_work(study, name, methods, message):
    config = "linearized_networks_quick" if name == "linearized_networks" else None
    code, printed = study(name, f"methods={methods}", config=config)
    assert code == 2
    assert message in printed


def test_any_raster_runs_as_malaria_rates(study, raster, tmp_path):
    code, printed = study(
        "malaria", f"data={{path: {raster}, source: '2012', target: '2016'}}", "hidden=30",
        "epochs=60", "points=[20, 60]", "sketch_size=500", "seeds=[0]",
    )  # fmt: skip
    assert code == 0, printed
    rows = findings(tmp_path, "malaria")["table"]
    error = {(row["method"], row["points"]): row["RMSE"] for row in rows}
    assert error["finite_ntk", 60] < error["blind", 60]
    assert error["finite_ntk", 60] < error["finite_ntk", 20]
    assert {row["method"] for row in rows} >= {"last_layer", "last_layer_6x", "network_gp"}


def test_a_table_without_the_columns_is_refused_by_name(study, raster):
    code, printed = study(
        "malaria", f"data={{path: {raster}, columns: {{rate: pfpr}}, source: '2012', target: x}}"
    )
    assert code == 2
    assert "lacks pfpr" in printed


@pytest.mark.parametrize("content", [b"", b"text" * 99, bytes(200)])
def test_a_file_that_is_not_matlabs_is_refused(study, tmp_path, content):
    (tmp_path / "faces.mat").write_bytes(content)
    code, printed = study("olivetti", "path=faces.mat")
    assert code == 2
    assert "is no MATLAB file" in printed


def test_rotations_of_faces_are_learned_from_few(study, faces, tmp_path):
    code, printed = study(
        "olivetti", f"path={faces}", "people=2", "copies=2", "epochs=2", "points=[5, 10]",
        "sketch_size=400", "seeds=[0]", "methods=[blind, last_layer, finite_ntk]",
    )  # fmt: skip
    assert code == 0, printed
    rows = findings(tmp_path, "olivetti")["table"]
    assert [(row["method"], row["points"]) for row in rows][-1] == ("finite_ntk", 10)
    assert all(np.isfinite(row["NLL"]) for row in rows)


def test_networks_stand_beside_their_linearizations(study, tmp_path):
    code, printed = study("linearized_networks", config="linearized_networks_quick")
    assert code == 0, printed
    rows = findings(tmp_path, "linearized_networks_quick")["table"]
    assert [row["network"] for row in rows] == ["narrow"] * 7 + ["wide"] * 7
    assert {row["method"] for row in rows} == {
        "network", "linearized", "network_gp", "finite_ntk", "finite_ntk_probit",
        "finite_ntk_map", "dirichlet",
    }  # fmt: skip
    assert all(row["accuracy, %"] > 40 and 0 <= row["ECE"] <= 1 for row in rows)


def test_classes_are_learned_on_an_encoder_without_labels(study, tmp_path):
    code, printed = study("linearized_depth", config="linearized_depth_quick")
    assert code == 0, printed
    rows = findings(tmp_path, "linearized_depth_quick")["table"]
    assert [(row["method"], row["top layers"]) for row in rows[:4]] == [
        ("activations", 0), ("finite_ntk", 1), ("variational", 1), ("fine-tuning", 1),
    ]  # fmt: skip
    assert all(row["accuracy, %"] > 40 for row in rows if row["method"] == "finite_ntk")


def test_linearized_functions_are_drawn_over_width(study, tmp_path):
    code, printed = study("inductive_bias", "widths=[20, 60]", "steps=200", "tanh=[[10, 10]]")
    assert code == 0, printed
    rows = findings(tmp_path, "inductive_bias")["table"]
    assert [(row["network"], row["trained"]) for row in rows] == [
        ("relu 20", False), ("relu 20", True), ("relu 60", False), ("relu 60", True),
        ("tanh 10-10", True),
    ]  # fmt: skip
    trained = {row["network"]: row for row in rows if row["trained"]}
    assert trained["relu 60"]["deviation outside"] > trained["relu 60"]["deviation inside"]


def test_jacobians_of_like_tasks_are_more_alike(study, tmp_path):
    generator = np.random.default_rng(0)
    for name, period in (("a", 4), ("b", 9)):
        images = generator.integers(0, 60, size=(160, 28, 28))
        labels = np.arange(160) // 2 % 2
        for i, label in enumerate(labels):
            stripes = np.arange(28) % period < period // 2
            images[i][stripes if label else ..., :] += 60
        np.savez(tmp_path / f"{name}.npz", train_images=images.astype("uint8"), train_labels=labels)
    a, b = tmp_path / "a.npz", tmp_path / "b.npz"
    halves = f"a1: {{path: {a}, half: 0}}, a2: {{path: {a}, half: 1}}"
    tasks = f"tasks={{{halves}, b: {{path: {b}}}}}"
    code, printed = study(
        "task_similarity", tasks, "networks=2", "epochs=1", "rows=20", "sketch_size=500",
        f"images={a}",
    )  # fmt: skip
    assert code == 0, printed
    rows = findings(tmp_path, "task_similarity")["table"]
    assert len(rows) == 6
    assert all(0 < row["parameter cosine"] <= 1 for row in rows)
