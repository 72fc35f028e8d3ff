"""What only a GPU can show, in one command: is it right, is it fast, does the whole job fit.

    python scripts/gpu_check.py [--parts right,fast,whole,exact] [--device cuda|cpu] [--quick]
                                [--out scripts/results/gpu_h200.json]

``right`` compares features of every family and sketch, the Gram and the path with float64 on the
CPU; ``fast`` runs the benchmarks at sizes that fill the card; ``whole`` is a job of Living-17's
size on synthetic images; ``exact`` the kernel of all of a ResNet-18's parameters. Needs torch and
this package's light dependencies; no Ray, no Dask; transformers and Zarr where they are installed.
The file is written after every part, so that a cut leaves the finished ones. Exit code 1 where a
part failed. ``--quick --device cpu`` is the rehearsal without a GPU.
"""

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu import exact, fast, right, whole
from rich.console import Console
from rich.table import Table

PARTS: dict[str, Callable[[str, bool], list[dict[str, Any]]]] = {
    "right": right.rows,
    "fast": fast.rows,
    "whole": whole.rows,
    "exact": exact.rows,
}


def main() -> None:
    arguments = parsed()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("gpu_check: torch sees no GPU here. Rehearse with --device cpu --quick.")
    facts: dict[str, Any] = {
        "check": "gpu",
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "command": " ".join(["python", *sys.argv]),
    }
    failed = False
    for name in arguments.parts.split(","):
        started = time.perf_counter()
        try:
            rows = PARTS[name](arguments.device, arguments.quick)
        except Exception as error:  # One part that breaks must not lose the others.
            traceback.print_exc()
            rows = [{"what": name, "ok": False, "error": f"{type(error).__name__}: {error}"}]
        failed |= not all(row.get("ok", True) for row in rows)
        facts[name] = {"seconds": time.perf_counter() - started, "rows": rows}
        Console().print(table(name, rows))
        if arguments.out:
            arguments.out.write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts))
    raise SystemExit(int(failed))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try the script")
    parser.add_argument("--out", type=Path, help="file for the JSON, written after every part")
    arguments = parser.parse_args()
    unknown = set(arguments.parts.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"unknown parts {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return arguments


def table(title: str, rows: list[dict[str, Any]]) -> Table:
    """The rows with every key that one of them has."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    made = Table(*columns, title=title, title_justify="left")
    for row in rows:
        made.add_row(*(text(row.get(column, "")) for column in columns))
    return made


def text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
