"""The Living-17 job from files to report, on a synthetic tree like ImageNet's, of any size.

    python scripts/rehearse_living17.py FOLDER [--train 510] [--test 102] [--side 128]
                                        [--set KEY=VALUE …]

Writes JPEGs of random colour fields in Living-17's 68 classes (there is nothing to learn in them),
runs ``configs/living17.yaml`` on them with random weights, and prints every stage's seconds and,
from the measured seconds (start-up included) and their growth with n, what 44,200 + 3,400 images
would take on the same machine. Everything stays in FOLDER: the same command continues. Without
``--set`` it is the full network and sketch at 224 pixels; the last line is JSON.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.artefact import read_json
from pipeline.data.living17 import subclasses
from pipeline.progress import progress_bars
from pipeline.registry import load_config
from pipeline.runs import RunFolder
from pipeline.stages.run import run_job

CONFIG = Path(__file__).parents[1] / "configs/living17.yaml"
FULL_TRAIN, FULL_TEST = 44_200, 3_400

GROWTH = {"features": 1, "kernel": 2, "fit entk": 2}
"""The power of n that a stage's time grows with, where it is known; others are not projected."""


def main() -> None:
    arguments = parsed()
    tree = arguments.folder / "imagenet"
    write_tree(tree / "train", ("source",), arguments.train, arguments.side)
    write_tree(tree / "val", ("source", "target"), arguments.test, arguments.side)
    folder = RunFolder(arguments.folder / "run")
    overrides = [f"benchmark.path={tree}", "model.weights=null", *arguments.set]
    with progress_bars() as progress:
        run_job(load_config(CONFIG, overrides), folder, progress)
    images = arguments.train + arguments.test
    figures = projected(read_json(folder.timing), (FULL_TRAIN + FULL_TEST) / images)
    for stage, (seconds, full) in figures.items():
        print(
            f"{stage:>24}: {seconds:9.1f} s"
            + (f"{full / 3600:9.2f} h at full size" if full else "")
        )
    print(json.dumps({"bench": "rehearse_living17", "images": images, "stages": figures}))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=510, help="images in train/")
    parser.add_argument("--test", type=int, default=102, help="images in val/")
    parser.add_argument("--side", type=int, default=256, help="pixels of an image's side")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args()


def write_tree(folder: Path, domains: tuple[str, ...], images: int, side: int) -> None:
    """JPEGs spread over the classes' folders; those that exist stay."""
    classes = [w for d in domains for wnids in subclasses("rand", d) for w in wnids]
    for i in range(images):
        wnid, number = classes[i % len(classes)], i // len(classes)
        path = folder / wnid / f"{wnid}_{number}.JPEG"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng([i, *folder.name.encode()])
            field = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            field.resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)


def projected(timing: dict[str, Any], times: float) -> dict[str, tuple[float, float | None]]:
    """Measured seconds of every stage, and those with ``times`` as many images."""
    return {
        stage: (
            facts["seconds"],
            facts["seconds"] * times ** GROWTH[stage] if stage in GROWTH else None,
        )
        for stage, facts in timing.items()
    }


if __name__ == "__main__":
    main()
