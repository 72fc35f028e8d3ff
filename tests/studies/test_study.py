"""Cells of a study: what they depend on, and what a killed study keeps."""

import pytest

from pipeline.runs import RunFolder
from pipeline.stages.job import Silence
from pipeline.studies.study import Findings, Study, StudyOptions, Work, run_study
from pipeline.types import InputError

OUT = "runs/analyses"


@pytest.fixture
def made(tmp_path):
    """Makes cells and gives the names of those that were made anew."""
    (tmp_path / "cells").mkdir()

    def call(names, options, axes=("widths",), own=None):
        new = []
        makers = {name: lambda name=name: new.append(name) or name.upper() for name in names}
        work = Work(RunFolder(tmp_path), options, Silence())
        assert work.cells(makers, axes=axes, own=own) == {name: name.upper() for name in names}
        return new

    return call


def test_a_cell_more_leaves_the_others_alone(made):
    assert made("ab", {"widths": [1, 2], "ridge": 1.0, "name": "x"}) == ["a", "b"]
    assert made("abc", {"widths": [1, 2, 3], "ridge": 1.0, "name": "y"}) == ["c"]


def test_options_that_are_no_axis_make_cells_anew(made):
    made("a", {"widths": [1], "ridge": 1.0})
    assert made("a", {"widths": [1], "ridge": 2.0}) == ["a"]


def test_what_is_a_cells_own_makes_it_alone_anew(made):
    made("ab", {"ridge": 1.0}, own={"a": "weights", "b": "others"})
    assert made("ab", {"ridge": 1.0}, own={"a": "weights", "b": "new ones"}) == ["b"]


@pytest.mark.parametrize("content", ["[]", '{"made_from": {}}', '{"made'])
def test_a_damaged_cell_is_named(made, tmp_path, content):
    made("a", {"ridge": 1.0})
    (tmp_path / "cells" / "a.json").write_text(content)
    with pytest.raises(InputError, match=r"a\.json is damaged"):
        made("a", {"ridge": 1.0})


def test_a_folder_of_something_else_is_left_as_it_is_and_a_study_continues(tmp_path):
    row = {"width": 1}
    study = Study(StudyOptions, lambda options, work: Findings([row], []))
    for name in ("config.yaml", "metrics.json"):
        foreign = tmp_path / name.replace(".", "_")
        foreign.mkdir()
        (foreign / name).write_text("theirs")
        with pytest.raises(InputError, match="files that are no study's"):
            run_study(study, StudyOptions(), RunFolder(foreign), Silence())
        assert [path.name for path in foreign.iterdir()] == [name]
    (tmp_path / "new").mkdir()
    for _ in range(2):
        found = run_study(study, StudyOptions(), RunFolder(tmp_path / "new"), Silence())
        assert found["table"] == [row]


def test_a_width_and_an_epoch_are_added_to_a_finished_study(study, tmp_path):
    small = ["networks=[convnet]", "rows=4", "test=4", "train=20", "kinds=[first]"]

    def run(*overrides):
        code, printed = study("pseudo_kernel", *small, *overrides, config="pseudo_kernel_quick")
        assert code == 0, printed
        folder = tmp_path / OUT / "pseudo_kernel_quick/cells"
        return {path.stem: path.stat().st_mtime_ns for path in folder.iterdir()}

    first = run("widths={convnet: [2]}", "epochs=[0]")
    second = run("widths={convnet: [2, 3]}", "epochs=[0, 1]")
    assert len(second) == 4
    assert first.items() <= second.items()
