"""Which nodes of a mixed cluster do what; a node with a GPU is said to have one."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PROGRAM = """
    import tempfile
    from pathlib import Path
    import ray
    from ray.cluster_utils import Cluster
    from block_functions import Spec, load_the_node, note_the_node
    from pipeline.distributed.ray import RayExecutor

    small = {"object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    nodes = [cluster.add_node(num_cpus=3, num_gpus=gpus, **small) for gpus in (1, 0)]
    cluster.wait_for_nodes()
    names = dict(zip((node.node_id for node in nodes), ("gpu", "cpu")))

    def places(workers, gpus, decoders):
        spec = Spec(tempfile.mkdtemp())
        executor = RayExecutor(
            workers=workers, threads=1, gpus_per_worker=gpus, address=cluster.address
        )
        with executor:
            streams = executor.start_decoders(
                load_the_node, spec, count=decoders, ahead=1, load_bytes=1
            )
            ray.get(list(streams.started))
            decoded = {names[node] for node in streams.stream(range(4), 60.0)}
            executor.run(note_the_node, spec, range(workers), lambda event: None)
        return {names[p.name.partition("-")[0]] for p in Path(spec.folder).iterdir()}, decoded

    print("FEATURES", places(workers=1, gpus=1.0, decoders=2))
    print("GRAM", places(workers=2, gpus=0.0, decoders=1))
    cluster.shutdown()
"""


@pytest.mark.slow
def test_decoding_and_work_without_gpus_keep_to_nodes_without_them(tmp_path):
    pytest.importorskip("ray")
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    )
    environment.pop("RAY_ADDRESS", None)
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=200,
    )
    assert "FEATURES ({'gpu'}, {'cpu'})" in result.stdout, result.stdout + result.stderr
    assert "GRAM ({'cpu'}, {'cpu'})" in result.stdout, result.stdout + result.stderr
