"""Images in folders: one folder a class, as ImageNet and torchvision lay them out."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pipeline.data.content_cache import file_digest, remembered
from pipeline.data.decoding import UnreadableImageError, decode_image
from pipeline.data.split import Rows

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
)


def class_folders(root: Path) -> list[str]:
    """Names of the folders directly in ``root``, sorted; hidden ones left out."""
    return sorted(
        entry.name for entry in os.scandir(root) if entry.is_dir() and not _hidden(entry.name)
    )


def image_files(folder: Path, root: Path) -> list[str]:
    """Paths, relative to ``root``, of the images in a folder and below it; sorted.

    Links are followed, but for those that lead back to where they were met.
    """
    found: list[str] = []
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [n for n in folders if not (_hidden(n) or _leads_back(Path(place, n)))]
        found += [
            (Path(place) / name).relative_to(root).as_posix() for name in files if is_image(name)
        ]
    return sorted(found)


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image (``._x.jpg`` and the like are not)."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and not _hidden(name)


def _hidden(name: str) -> bool:
    return name.startswith(".")


def _leads_back(folder: Path) -> bool:
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


@dataclass(frozen=True)
class FolderSource:
    """Image files under one root, a row each."""

    root: Path
    files: tuple[str, ...]
    """Paths relative to the root; they are the samples' ids."""

    def __len__(self) -> int:
        return len(self.files)

    def ids(self, rows: Rows) -> list[str]:
        """Paths relative to the root."""
        return [self.files[row] for row in rows]

    def paths(self, rows: Iterable[int]) -> list[Path]:
        """Full paths."""
        return [self.root / self.files[row] for row in rows]

    def fingerprints(self, rows: Rows) -> list[str]:
        """SHA-256 of each file, computed once while it does not change."""
        return remembered(self.paths(rows), "sha256", _digest)

    def image(self, row: int) -> Image.Image:
        """The decoded image of a row."""
        path = self.root / self.files[row]
        _refuse_no_file(path)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UnreadableImageError(f"{path}: {error.strerror}") from None
        return decode_image(data, str(path))


def _digest(path: Path) -> str:
    _refuse_no_file(path)
    try:
        return file_digest(path)
    except OSError as error:
        raise UnreadableImageError(f"{path}: {error.strerror}") from None


def _refuse_no_file(path: Path) -> None:
    """A pipe or a device gives bytes for ever; what is absent is told by reading it."""
    if path.exists() and not path.is_file():
        raise UnreadableImageError(f"{path}: no regular file")
