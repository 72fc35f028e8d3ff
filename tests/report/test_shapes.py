import pytest

from pipeline.artefact import CorruptArtefactError, read_json, write_json
from pipeline.report.build import build_report


def with_text_for_a_number(metrics):
    metrics["methods"]["entk"]["splits"]["id_test"]["accuracy"] = "high"
    return metrics


def without_ranks(spectrum):
    return {key: value for key, value in spectrum.items() if key != "ranks"}


def with_a_rank_too_few(spectrum):
    return {**spectrum, "ranks": spectrum["ranks"][1:]}


@pytest.mark.parametrize(
    ("file", "damaged", "told"),
    [
        ("plan.json", lambda plan: None, "the file: expected a group of keys, found null"),
        ("metrics.json", with_text_for_a_number, 'accuracy: expected a number, found "high"'),
        ("metrics.json", lambda metrics: [], "expected a group of keys, found []"),
        ("timing.json", lambda timing: {"kernel": 3}, "kernel: expected a group of keys, found 3"),
        ("notes.json", lambda notes: {"network": "all"}, "network: expected a list"),
        ("spectrum/spectrum.json", without_ranks, "ranks is not there"),
        ("spectrum/spectrum.json", with_a_rank_too_few, "as many ranks as eigenvalues"),
        ("comparisons/comparisons.json", lambda found: {}, "level is not there"),
        ("fit/entk/fit.json", lambda fit: {"selected": 3}, "selected: expected a group of keys"),
        ("fit/entk/provenance.json", lambda found: None, "expected a group of keys"),
    ],
)
def test_an_artefact_of_another_shape_is_refused_by_name(make_run, file, damaged, told):
    path = make_run(curves=True) / file
    write_json(path, damaged(read_json(path)))
    with pytest.raises(CorruptArtefactError) as refused:
        build_report(path.parents[file.count("/")])
    assert str(refused.value).startswith(f"{path} does not hold what a report needs")
    assert told in str(refused.value)


def test_what_to_delete_is_the_stage_folder_or_else_the_file(make_run):
    folder = make_run()
    stage = folder / "fit" / "entk"
    write_json(stage / "fit.json", None)
    with pytest.raises(CorruptArtefactError, match=f"Delete the folder {stage} and run the same"):
        build_report(folder)
    write_json(stage / "fit.json", {})
    write_json(folder / "plan.json", None)
    with pytest.raises(CorruptArtefactError, match="Delete it and run the same command again"):
        build_report(folder)
