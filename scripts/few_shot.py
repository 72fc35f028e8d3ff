"""Carry one task's knowledge to others by linearized networks and their rivals, from a config.

    python scripts/few_shot.py configs/few_shot_sinusoids_tanh.yaml [--set epochs=100]
                               [--figure FILE.svg] [--out FILE.json]

Prints RMSE (± its standard error over tasks), NLL and the coverage of 95 % intervals over all
target tasks; the last line is JSON.
"""

import argparse
import json
import logging
import time
from pathlib import Path

import torch

from pipeline.analyses.few_shot_study import draw_study, load_options, run_study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--figure", type=Path, help="file for the figure")
    parser.add_argument("--out", type=Path, help="file for the JSON as well")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    options = load_options(arguments.config, arguments.set)
    start = time.perf_counter()
    study = run_study(options)
    seconds = time.perf_counter() - start
    for name, found in study.scores.items():
        print(
            f"{name:>16}: RMSE {found['rmse']:7.3f} ± {found['rmse_stderr']:.3f}   "
            f"NLL {found['nll']:10.3f}   coverage {100 * found['coverage']:5.1f} %"
        )
    if arguments.figure:
        draw_study(study).savefig(arguments.figure)
    line = json.dumps(
        {
            "study": options.kind,
            "command": f"python scripts/few_shot.py {arguments.config}",
            "threads": torch.get_num_threads(),
            "seconds": round(seconds, 1),
            "options": options.model_dump(mode="json", exclude={"path"}),
            "scores": study.scores,
        }
    )
    if arguments.out:
        arguments.out.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
