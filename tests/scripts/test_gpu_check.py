"""The GPU check runs to its table on a CPU, made small: nothing but the card is missing then."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def checked(tmp_path: Path, *parts: str) -> dict:
    """The facts that a rehearsal of these parts writes."""
    out = tmp_path / "facts.json"
    command = [sys.executable, "scripts/gpu_check.py", "--device", "cpu", "--quick"]
    done = subprocess.run(
        [*command, "--parts", ",".join(parts), "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    return json.loads(out.read_text())


@pytest.mark.slow
def test_features_gram_and_path_are_right_and_the_whole_job_learns(tmp_path):
    facts = checked(tmp_path, "right", "whole")
    assert all(row["ok"] for row in facts["right"]["rows"])
    families = {row["what"].split(",")[0] for row in facts["right"]["rows"]}
    assert {"resnet18", "cifar_resnet20", "squeezenet", "vit", "bert", "gpt2"} <= families
    assert facts["whole"]["rows"][-1]["accuracy"] > 0.5


def test_an_unknown_part_is_refused_with_the_known_ones(tmp_path):
    command = [sys.executable, "scripts/gpu_check.py", "--parts", "wrong"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "right, fast, whole, exact" in done.stderr
