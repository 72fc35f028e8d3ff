import errno
from pathlib import Path

import pytest

from pipeline.artefact import FullDiskError
from pipeline.store.place import as_location, child, place_at


def test_a_url_stays_a_url_and_a_folder_becomes_a_path():
    assert as_location("s3://bucket/cache/") == "s3://bucket/cache"
    assert child(as_location("s3://bucket/cache"), "a") == "s3://bucket/cache/a"
    assert as_location("file:///data/cache") == Path("/data/cache")
    assert as_location("runs/cache") == Path("runs/cache")


def test_the_first_writer_of_a_file_wins(tmp_path):
    place = place_at(tmp_path)
    assert place.create("leases/a", b"first")
    assert not place.create("leases/a", b"second")
    assert place.read("leases/a") == b"first"
    assert place.sizes() == {"leases/a": 5}


def test_a_full_disk_says_so_and_leaves_nothing(tmp_path, monkeypatch):
    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    for write in (place_at(tmp_path).write, place_at(tmp_path).create):
        with pytest.raises(FullDiskError, match=r"no space is left to write .*a\. Free space"):
            write("a", b"content")
    assert not list(tmp_path.iterdir())
