import errno
from pathlib import Path

import pytest

from pipeline.artefact import FullDiskError
from pipeline.store.place import as_location, child, place_at
from pipeline.types import InputError


def test_a_url_stays_a_url_and_a_folder_becomes_a_path():
    assert as_location("s3://bucket/cache/") == "s3://bucket/cache"
    assert child(as_location("s3://bucket/cache"), "a") == "s3://bucket/cache/a"
    assert as_location("file:///data/cache") == Path("/data/cache")
    assert as_location("runs/cache") == Path("runs/cache")


def test_a_file_url_names_the_folder_that_its_standard_says():
    assert as_location("file://localhost/data/a%20b/") == Path("/data/a b")
    assert as_location("FILE:///data") == Path("/data")


@pytest.mark.parametrize(
    "text", ["s3://", "s3:/bucket/a", "s3:///a", "file://data/a", "file:/data"]
)
def test_what_is_nearly_a_url_is_refused_and_makes_no_folder_here(text):
    with pytest.raises(InputError, match=r"is no URL.*expected file:///folder, s3://bucket"):
        as_location(text)


def test_a_url_of_another_scheme_is_refused_in_one_line():
    pytest.importorskip("obstore")
    with pytest.raises(InputError, match="foo://bucket/a cannot be used") as caught:
        place_at("foo://bucket/a")
    assert "\n" not in str(caught.value)


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
