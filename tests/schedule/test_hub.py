"""Hub revisions become commits; what a hub sends stays in its folder."""

import logging
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from pipeline.schedule import hub
from pipeline.schedule.options import HubOptions
from pipeline.types import InputError

huggingface_hub = pytest.importorskip("huggingface_hub")

OLD, NEW = "a" * 40, "b" * 40
MODEL = HubOptions(repository="owner/name", revision="main")


def stub(monkeypatch, commit: str | Exception) -> list[dict]:
    """A hub at one commit, or out of reach; what is asked of it."""
    asked: list[dict] = []

    class Api:
        def model_info(self, repository, revision):
            if isinstance(commit, Exception):
                raise commit
            return SimpleNamespace(sha=commit)

    def download(repository, *, revision, local_dir, allow_patterns):
        asked.append({"revision": revision, "patterns": allow_patterns})
        local_dir.mkdir(parents=True)
        (local_dir / "config.json").write_text("{}")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def test_a_commit_is_fetched_once_and_a_new_one_into_a_folder_of_its_own(monkeypatch, tmp_path):
    folders = []
    for commit in (OLD, OLD, NEW):
        asked = stub(monkeypatch, commit)
        folders.append(hub.snapshot(MODEL, hub.resolved_commit(MODEL, tmp_path), tmp_path))
    assert folders[0] == folders[1] != folders[2]
    assert [call["revision"] for call in asked] == [NEW]


def test_no_file_that_could_hold_code_is_asked_for(monkeypatch, tmp_path):
    asked = stub(monkeypatch, OLD)
    hub.snapshot(MODEL, OLD, tmp_path)
    patterns = asked[0]["patterns"]
    assert not {"*.bin", "*.pt", "*.pth", "*.pkl", "*.py", "*"} & set(patterns)


def test_without_a_network_the_last_commit_is_taken_and_said(monkeypatch, tmp_path, caplog):
    stub(monkeypatch, OLD)
    hub.resolved_commit(MODEL, tmp_path)
    stub(monkeypatch, ConnectionError("no route"))
    with caplog.at_level(logging.WARNING, logger="pipeline"):
        assert hub.resolved_commit(MODEL, tmp_path) == OLD
    assert "cannot be reached" in caplog.text


def test_without_a_network_and_a_commit_the_model_fails(monkeypatch, tmp_path):
    stub(monkeypatch, ConnectionError("no route"))
    with pytest.raises(InputError, match="owner/name at main"):
        hub.resolved_commit(MODEL, tmp_path)


def test_a_model_that_was_taken_from_the_hub_fails(monkeypatch, tmp_path):
    stub(monkeypatch, OLD)
    hub.resolved_commit(MODEL, tmp_path)
    response = SimpleNamespace(headers={}, request=None)
    gone = huggingface_hub.errors.RepositoryNotFoundError("404", response=response)
    stub(monkeypatch, gone)
    with pytest.raises(InputError, match="404"):
        hub.resolved_commit(MODEL, tmp_path)


def test_a_commit_that_is_none_is_refused(monkeypatch, tmp_path):
    stub(monkeypatch, "../../etc")
    with pytest.raises(InputError, match="no commit"):
        hub.resolved_commit(MODEL, tmp_path)


@pytest.mark.parametrize("name", ["../up", "a/../../b", "/abs", "a/b/c", "a\\b", ".hidden/x", ""])
def test_a_repository_cannot_name_a_path_out_of_the_cache(name):
    with pytest.raises(ValidationError):
        HubOptions(repository=name)


@pytest.mark.parametrize("name", ["../up", "refs/../../x", "/abs", ""])
def test_a_revision_cannot_name_a_path_out_of_the_cache(name):
    with pytest.raises(ValidationError):
        HubOptions(repository="owner/name", revision=name)


def test_a_link_out_of_a_fetched_folder_is_refused(tmp_path):
    folder = tmp_path / "fetched"
    folder.mkdir()
    (folder / "config.json").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="points outside"):
        hub.refuse_escapes(folder)
