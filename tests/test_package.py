"""What importing the package does to its process."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("GOMP_SPINCOUNT", "", "1000"),
        ("GOMP_SPINCOUNT", "5", "5"),
        ("OMP_WAIT_POLICY", "active", "None"),
    ],
)
def test_threads_that_wait_soon_sleep_unless_the_environment_chooses(variable, value, expected):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP_", "OMP_"))}
    if value:
        environment[variable] = value
    program = "import pipeline, os; print(os.environ.get('GOMP_SPINCOUNT'))"
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == expected
