import os

from pipeline.data.content_cache import cache_folder, file_digest, remembered


def counted(calls):
    def compute(path):
        calls.append(path.name)
        return file_digest(path)

    return compute


def test_facts_are_computed_once_while_files_stay(tmp_path, put):
    paths = [tmp_path / "a" / "1", tmp_path / "b" / "1", tmp_path / "a" / "2"]
    for i, path in enumerate(paths):
        put(path, bytes([i]))
    calls = []
    first = remembered(paths, "sha", counted(calls))
    assert first == [file_digest(path) for path in paths]
    assert remembered(paths[::-1], "sha", counted(calls)) == first[::-1]
    assert len(calls) == 3
    assert remembered(paths[:1], "other", lambda path: path.name) == ["1"]


def test_a_changed_file_is_read_again(tmp_path, put):
    path = tmp_path / "x"
    put(path, b"one")
    calls = []
    (before,) = remembered([path], "sha", counted(calls))
    path.write_bytes(b"two")  # the same size
    os.utime(path, (1_700_000_000, 1_700_000_000))
    (after,) = remembered([path], "sha", counted(calls))
    assert before != after
    assert len(calls) == 2


def test_a_file_written_just_now_is_not_trusted(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"one")
    calls = []
    for _ in range(2):
        remembered([path], "sha", counted(calls))
    assert len(calls) == 2


def test_a_damaged_memory_is_recomputed(tmp_path, put, cache):
    path = tmp_path / "x"
    put(path, b"one")
    remembered([path], "sha", file_digest)
    (memory,) = (cache / "content").iterdir()
    memory.write_text("{ torn")
    assert remembered([path], "sha", file_digest) == [file_digest(path)]


def test_an_unwritable_cache_costs_only_time(tmp_path, put, monkeypatch, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("ENTK_CACHE", str(blocked / "cache"))
    path = tmp_path / "x"
    put(path, b"one")
    assert remembered([path], "sha", file_digest) == [file_digest(path)]
    assert "ENTK_CACHE" in caplog.text


def test_the_cache_lies_at_home_unless_told(monkeypatch, tmp_path):
    monkeypatch.delenv("ENTK_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "entk"
