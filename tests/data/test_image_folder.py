import hashlib
import os

import numpy as np
import pytest

from pipeline.data.decoding import UnreadableImageError
from pipeline.data.image_folder import FolderSource, class_folders, image_files


def test_only_images_are_listed_and_in_order(tmp_path, jpeg, put):
    for name in ("b.JPEG", "a.png", "deep/er/c.webp", "notes.txt", "._b.JPEG", ".git/x.jpg"):
        put(tmp_path / "cat" / name, jpeg(0))
    put(tmp_path / "dog" / "d.jpg", jpeg(1))
    put(tmp_path / ".hidden" / "e.jpg", jpeg(2))
    assert class_folders(tmp_path) == ["cat", "dog"]
    assert image_files(tmp_path / "cat", tmp_path) == [
        "cat/a.png",
        "cat/b.JPEG",
        "cat/deep/er/c.webp",
    ]


def test_fingerprints_are_those_of_the_files_wherever_they_lie(tmp_path, jpeg, put):
    for root in ("x", "y"):
        put(tmp_path / root / "a.jpg", jpeg(0))
        put(tmp_path / root / "b.jpg", jpeg(1))
    rows = np.array([1, 0])
    sources = [FolderSource(tmp_path / root, ("a.jpg", "b.jpg")) for root in ("x", "y")]
    assert sources[0].fingerprints(rows) == sources[1].fingerprints(rows)
    assert sources[0].fingerprints(rows)[0] == hashlib.sha256(jpeg(1)).hexdigest()
    assert sources[0].ids(rows) == ["b.jpg", "a.jpg"]


def test_a_missing_file_is_named(tmp_path):
    source = FolderSource(tmp_path, ("gone.jpg",))
    with pytest.raises(UnreadableImageError, match=r"gone\.jpg: No such file"):
        source.image(0)
    with pytest.raises(UnreadableImageError, match=r"gone\.jpg: No such file"):
        source.fingerprints(np.array([0]))


def test_a_link_to_a_folder_is_followed_and_one_that_leads_back_is_not(tmp_path, jpeg, put):
    put(tmp_path / "cat" / "a.jpg", jpeg(0))
    put(tmp_path / "more" / "b.jpg", jpeg(1))
    (tmp_path / "cat" / "also").symlink_to(tmp_path / "more")
    (tmp_path / "cat" / "loop").symlink_to(tmp_path)
    assert image_files(tmp_path / "cat", tmp_path) == ["cat/a.jpg", "cat/also/b.jpg"]


def test_a_pipe_among_the_images_is_refused(tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    source = FolderSource(tmp_path, ("x.jpg",))
    for look in (lambda: source.image(0), lambda: source.fingerprints(np.array([0]))):
        with pytest.raises(UnreadableImageError, match=r"x\.jpg: no regular file"):
            look()
