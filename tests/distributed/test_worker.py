import logging
import os
import platform
import resource
import subprocess
import sys

import numpy as np
import pytest

from pipeline.distributed.worker import (
    KEPT_MEMORY,
    kept_memory,
    log_file,
    peak_resident_bytes,
    summary,
)


def test_peak_memory_counts_what_was_held():
    before = peak_resident_bytes()
    np.ones(before // 8)
    assert peak_resident_bytes() > before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux passes the peak on")
def test_peak_memory_of_a_process_is_its_own():
    held = np.ones(2**27)
    program = "from pipeline.distributed.worker import *; print(peak_resident_bytes())"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert int(child.stdout) < held.nbytes


def faults_of_a_large_array():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**23)  # 64 MiB, which glibc would take from the system and give back
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a switch of glibc")
def test_freed_memory_is_used_again_inside_and_given_back_after(monkeypatch):
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    with kept_memory():
        faults_of_a_large_array()
        assert faults_of_a_large_array() < 100
    assert faults_of_a_large_array() >= 16


THREADS_MEMORY = """
import resource, threading
import numpy as np

def fill():
    for _ in range(3):
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        np.ones(2**22)

faults = []
thread = threading.Thread(target=fill)
thread.start()
thread.join()
print(faults[2] - faults[1])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a switch of glibc")
def test_a_process_that_begins_so_uses_the_freed_memory_of_its_threads_again():
    plain = {name: text for name, text in os.environ.items() if not name.startswith("MALLOC_")}
    faults = [
        int(subprocess.check_output([sys.executable, "-c", THREADS_MEMORY], env=environment))
        for environment in (plain, plain | KEPT_MEMORY)
    ]
    assert faults[0] >= 16
    assert faults[1] < 16


def test_the_log_of_a_worker_goes_to_its_own_file(tmp_path):
    with log_file(tmp_path / "logs", "worker-007"):
        logging.getLogger("pipeline.anything").warning("shard %d is late", 3)
    logging.getLogger("pipeline.anything").warning("not this")
    text = (tmp_path / "logs" / "worker-007.log").read_text()
    assert "shard 3 is late" in text
    assert "not this" not in text


def test_a_summary_names_type_message_and_place():
    try:
        [][1]
    except IndexError as error:
        text = summary(error)
    assert text.startswith("IndexError: list index out of range (test_worker.py:")
