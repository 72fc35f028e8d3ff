import json

import numpy as np
import pytest

from pipeline.artefact import (
    CorruptArtefactError,
    ForeignArtefactError,
    atomic_path,
    digest,
    is_done,
    new_artefact,
    open_artefact,
    read_arrays,
    read_json,
    write_json,
)
from pipeline.types import InputError


def test_equal_values_have_equal_digests_whatever_the_order_of_keys():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_nan_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"accuracy": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_no_partial_one(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": True})

    def interrupted():
        with atomic_path(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert read_json(path) == {"old": True}


def test_damaged_json_is_refused_by_name(tmp_path):
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(CorruptArtefactError, match=r"a\.json is damaged"):
        read_json(tmp_path / "a.json")


def test_an_artefact_is_done_only_with_its_own_provenance(tmp_path):
    path = tmp_path / "kernel"
    with new_artefact(path, {"seed": 0, "sizes": (1, 2)}) as folder:
        (folder / "K").write_text("1")
    assert is_done(path, {"seed": 0, "sizes": (1, 2)})
    assert not is_done(path, {"seed": 1, "sizes": (1, 2)})
    assert not is_done(tmp_path / "other", {})


def test_opening_with_another_provenance_names_both_sides(tmp_path):
    with new_artefact(tmp_path / "kernel", {"sketch": {"seed": 0}}):
        pass
    with pytest.raises(ForeignArtefactError, match=r"sketch\.seed: found 0, wanted 1"):
        open_artefact(tmp_path / "kernel", {"sketch": {"seed": 1}})


def test_an_interrupted_artefact_is_not_done_and_keeps_the_old_one(tmp_path):
    path = tmp_path / "kernel"
    with new_artefact(path, {"seed": 0}) as folder:
        (folder / "K").write_text("old")

    def interrupted():
        with new_artefact(path, {"seed": 1}) as folder:
            (folder / "K").write_text("new")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        interrupted()
    assert is_done(path, {"seed": 0})
    assert (path / "K").read_text() == "old"


def test_a_writer_killed_while_it_removes_the_old_artefact_leaves_the_new_one(
    tmp_path, monkeypatch
):
    path = tmp_path / "kernel"

    def written(seed):
        with new_artefact(path, {"seed": seed}) as folder:
            (folder / "K").write_text(str(seed))

    def killed(folder):
        (folder / "K").unlink()
        raise KeyboardInterrupt

    written(0)
    with monkeypatch.context() as patched:
        patched.setattr("pipeline.artefact.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            written(1)
    assert open_artefact(path) == {"seed": 1}
    written(2)
    assert [folder.name for folder in tmp_path.iterdir()] == ["kernel"]


def test_remains_of_a_killed_writer_do_not_enter_the_next_artefact(tmp_path):
    remains = tmp_path / "kernel.partial"
    remains.mkdir()
    (remains / "stale").write_text("x")
    with new_artefact(tmp_path / "kernel", {}):
        pass
    assert sorted(file.name for file in (tmp_path / "kernel").iterdir()) == [
        "files.json",
        "provenance.json",
    ]
    assert json.loads((tmp_path / "kernel" / "provenance.json").read_text()) == {}


@pytest.mark.parametrize("damage", ["cut", "lost"])
def test_an_artefact_with_a_file_cut_or_lost_is_not_done(tmp_path, damage):
    path = tmp_path / "kernel"
    with new_artefact(path, {"seed": 0}) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "K").write_text("12345")
    assert open_artefact(path) == {"seed": 0}
    if damage == "cut":
        (path / "sub" / "K").write_text("1")
    else:
        (path / "sub" / "K").unlink()
    assert not is_done(path, {"seed": 0})
    with pytest.raises(CorruptArtefactError, match="sub/K missing or cut"):
        open_artefact(path)


def test_damaged_arrays_are_refused_by_name(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(100.0))
    np.testing.assert_array_equal(read_arrays(tmp_path / "a.npz")["x"], np.arange(100.0))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[400] ^= 255
    for damaged in (content, content[:300], b""):
        (tmp_path / "a.npz").write_bytes(damaged)
        with pytest.raises(CorruptArtefactError, match=r"a\.npz is damaged"):
            read_arrays(tmp_path / "a.npz")


def test_an_absent_artefact_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="Run the stage"):
        open_artefact(tmp_path / "kernel")
