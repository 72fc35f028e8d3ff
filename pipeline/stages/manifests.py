"""The list of every split's samples, kept with the run so that others can check the splits."""

from pipeline.artefact import atomic_path
from pipeline.data.manifest import manifest
from pipeline.stages.job import Job


def write_manifests(job: Job) -> None:
    """One CSV a split in ``manifests/``; lists of splits that are no more go."""
    folder = job.folder.manifests
    lists = {f"{name}.csv": split for name, split in job.benchmark.splits.items()}
    for stale in folder.glob("*.csv"):
        if stale.name not in lists:
            stale.unlink()
    for name, split in lists.items():
        text = manifest(job.benchmark, split)
        path = folder / name
        if not (path.is_file() and path.read_text() == text):
            with atomic_path(path) as partial:
                partial.write_text(text)
