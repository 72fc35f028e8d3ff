"""The most confident mistakes of the converged machine, with what taught it to make them.

The score of a class is Σᵢ k(x, xᵢ) αᵢ plus the class' share of the training rows: every training
sample has its part in a wrong answer, and those of the largest part are listed beside it.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.analyses.influence import contributions
from pipeline.artefact import digest, read_json, write_json
from pipeline.data.split import Split
from pipeline.evaluation import Predictions, read_predictions
from pipeline.metrics.calibration import log_probabilities, top_label
from pipeline.stages.fit import CONVERGED, Fitted
from pipeline.stages.job import Job, stage_provenance
from pipeline.stages.kernel_files import BLOCKS, KernelBlocks
from pipeline.stages.stage import run_stage

logger = logging.getLogger(__name__)

MISTAKES = 6
"""Mistakes listed of each split."""

SAMPLES = 4
"""Training samples listed beside each mistake."""

THUMBNAIL_PIXELS = 112
"""Longest side of an image in the report."""

TEXT_CHARACTERS = 160
"""Of a text, its beginning."""


def list_mistakes(job: Job, scored: Mapping[str, Any]) -> None:
    """Write ``mistakes/mistakes.json`` and its images unless they are there; classes only."""
    facts = scored["methods"][CONVERGED]
    if not job.benchmark.classes or not facts["splits"]:
        return
    splits = [name for name in job.evaluated if name != job.config.selection]
    predictions = job.folder.predictions(CONVERGED)
    provenance = stage_provenance(
        "mistakes",
        predictions=digest(read_json(predictions / "provenance.json")),
        kernel=digest(read_json(job.folder.kernel / "provenance.json")),
        classes=job.benchmark.classes,
    )

    def make(folder: Path) -> Mapping[str, Any]:
        album = Album(folder)
        listed = {
            name: _listed(job, name, predictions / f"{name}.npz", facts["temperature"], album)
            for name in splits
        }
        write_json(folder / "mistakes.json", {"method": CONVERGED, "splits": listed})
        return {"images": album.count}

    run_stage(job.folder, "mistakes", job.folder.mistakes, provenance, make)


def most_confident_mistakes(
    predictions: Predictions, temperature: float, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are wrong, the most confident first, and the confidence of every row."""
    confidence, right = top_label(predictions.scores, predictions.labels, temperature)
    wrong = np.flatnonzero(right == 0)
    return wrong[np.argsort(-confidence[wrong], kind="stable")][:most], confidence


@dataclass
class Album:
    """Thumbnails, numbered as they come; a sample that is no image is described in words."""

    folder: Path
    count: int = 0

    def add(self, split: Split, position: int) -> dict[str, str]:
        """``image``, the file's name, or ``text``, or nothing for plain numbers."""
        sample = split.source.image(int(split.rows[position]))
        if isinstance(sample, str):
            return {"text": sample[:TEXT_CHARACTERS]}
        if isinstance(sample, np.ndarray):
            if sample.dtype != np.uint8 or sample.ndim < 2:
                return {}
            sample = Image.fromarray(sample)
        thumbnail = sample.convert("RGB")
        thumbnail.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        name = f"{self.count:03d}.png"
        thumbnail.save(self.folder / name)
        self.count += 1
        return {"image": name}


def _listed(
    job: Job, name: str, file: Path, temperature: float, album: Album
) -> list[dict[str, Any]]:
    found, split = read_predictions(file), job.split(name)
    rows, confidence = most_confident_mistakes(found, temperature, MISTAKES)
    probabilities = np.exp(log_probabilities(found.scores[rows], temperature))
    predicted, classes = found.scores[rows].argmax(axis=1), job.benchmark.classes
    taught = _taught(job, name, rows, predicted, album)
    return [
        {
            "id": str(found.ids[row]),
            "label": classes[int(found.labels[row])],
            "predicted": classes[int(predicted[i])],
            "confidence": float(confidence[row]),
            "label_probability": float(probabilities[i, int(found.labels[row])]),
            **album.add(split, int(row)),
            **taught[i],
        }
        for i, row in enumerate(rows)
    ]


def _taught(
    job: Job, name: str, rows: np.ndarray, predicted: np.ndarray, album: Album
) -> list[dict[str, Any]]:
    """For each row the training samples that added most to the score of the predicted class.

    Beside them what all samples that raise it and all that lower it add: these may be far larger
    than the score itself and cancel.
    """
    if read_json(job.folder.kernel / "provenance.json")["layout"] != BLOCKS or len(rows) == 0:
        logger.info("mistakes: no training samples listed, K does not lie in whole blocks")
        return [{"taught_by": []} for _ in rows]
    fitted = [job.split("train"), *([job.split(job.config.selection)] if job.config.refit else [])]
    dual = Fitted.open(job.folder, CONVERGED).machine.dual
    parts = contributions(
        torch.from_numpy(_cross_rows(job, name, rows)), dual, torch.from_numpy(predicted)
    )
    strongest = parts.topk(min(SAMPLES, parts.shape[1]), dim=1).indices.tolist()
    return [
        {
            "taught_by": [
                {**_sample(job, fitted, i, album), "adds": float(part[i])} for i in strongest[row]
            ],
            "raised_by": float(part.clamp(min=0).sum()),
            "lowered_by": float(part.clamp(max=0).sum()),
        }
        for row, part in enumerate(parts)
    ]


def _cross_rows(job: Job, name: str, rows: np.ndarray) -> np.ndarray:
    """The kernel of some of a split's rows with all rows that were fitted, float64."""
    blocks = KernelBlocks.open(job.folder.kernel)
    cross = blocks.refit_cross(name) if job.config.refit else blocks.cross(name)
    return np.asarray(cross[rows], dtype=np.float64)


def _sample(job: Job, fitted: Sequence[Split], i: int, album: Album) -> dict[str, Any]:
    """A fitted row's name, class and image."""
    split, position = (fitted[0], i) if i < len(fitted[0]) else (fitted[1], i - len(fitted[0]))
    return {
        "id": split.subset([position]).ids[0],
        "label": job.benchmark.classes[int(split.labels[position])],
        **album.add(split, position),
    }
