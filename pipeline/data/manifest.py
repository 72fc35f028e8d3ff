"""A split as a list that others can check: each sample's id, label, domain and content hash."""

import csv
import io

from pipeline.data.split import Benchmark, Split

COLUMNS = ("id", "label", "group", "sha256")


def manifest(benchmark: Benchmark, split: Split) -> str:
    """CSV in the split's own order, which is the order of its features' rows.

    ``label`` is the class's name, or the targets of a regression with spaces between them;
    ``group`` is the domain's name, its number where domains have none, and empty without domains.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    labels = _labels(benchmark, split)
    table.writerows(
        zip(split.ids, labels, _groups(benchmark, split), split.fingerprints(), strict=True)
    )
    return text.getvalue()


def _labels(benchmark: Benchmark, split: Split) -> list[str]:
    if split.labels.ndim == 2:
        return [" ".join(map(repr, targets)) for targets in split.labels.tolist()]
    names = benchmark.pretrain_classes if split.name == "pretrain" else benchmark.classes
    return [names[label] for label in split.labels]


def _groups(benchmark: Benchmark, split: Split) -> list[str]:
    if split.groups is None:
        return [""] * len(split)
    names = benchmark.group_names
    return [names[group] if names else str(group) for group in split.groups]
