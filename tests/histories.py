"""A line of a schedule's history, for tests of what is done with one."""

from typing import Any

from pipeline.history import Entry


def entry(model: str = "a", **changes: Any) -> Entry:
    """One model's scores on the digits; ``changes`` replace what is given here."""
    facts: dict[str, Any] = {
        "model": model,
        "benchmark": "digits",
        "sketch": "uniform",
        "revision": "0123456789ab",
        "source": "a.pth",
        "key": f"key of {model}",
        "date": "2026-11-21T00:00:00Z",
        "run": "runs/a",
        "metric": "accuracy",
        "id": 0.5,
        "id_stderr": 0.1,
        "ood": None,
        "ood_stderr": None,
        "scores": {"entk": {"id_test": 0.5}},
        "seconds": 1.0,
        "bytes": 100,
        "stores": {"train": "cache/features-a"},
    }
    return Entry(**facts | changes)
