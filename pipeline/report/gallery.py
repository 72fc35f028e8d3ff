"""The most confident mistakes for the page: images inside it, classes and numbers in words."""

import base64
from pathlib import Path
from typing import Any

from pipeline.report.record import METHOD_LABELS, Run, ordered_splits, split_label


def galleries(run: Run) -> list[dict[str, Any]]:
    """One group of cards a split, ID test first; splits without a mistake are left out."""
    folder = run.folder / "mistakes"
    splits = run.mistakes.get("splits", {})
    return [
        {"label": split_label(split), "cards": [_card(folder, card) for card in splits[split]]}
        for split in ordered_splits(set(splits))
        if splits[split]
    ]


def gallery_method(run: Run) -> str:
    """The method whose mistakes are shown."""
    name = str(run.mistakes.get("method") or "")
    return METHOD_LABELS.get(name, name)


def _card(folder: Path, card: dict[str, Any]) -> dict[str, Any]:
    return {
        **_pictured(folder, card),
        "confidence": f"{100 * card['confidence']:.0f}",
        "label_probability": _percent(card["label_probability"]),
        "taught_by": [
            {**_pictured(folder, teacher), "adds": _part(teacher["adds"])}
            for teacher in card["taught_by"]
        ],
        # Runs made before these sums were stored are drawn without them.
        "in_all": [_part(card[key]) for key in ("raised_by", "lowered_by") if key in card],
    }


def _pictured(folder: Path, sample: dict[str, Any]) -> dict[str, Any]:
    """The sample with its image as a data URI."""
    file = folder / str(sample.get("image") or "")
    if not file.is_file():
        return {**sample, "image": None, "text": sample.get("text")}
    encoded = base64.b64encode(file.read_bytes()).decode()
    return {**sample, "image": f"data:image/png;base64,{encoded}", "text": None}


def _part(value: float) -> str:
    """A part of a score, the larger the fewer decimals."""
    decimals = 0 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 3
    return f"{value:+,.{decimals}f}".replace("-", "−")


def _percent(share: float) -> str:
    return "< 1" if share < 0.01 else f"{100 * share:.0f}"
