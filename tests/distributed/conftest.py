"""The executors that share one suite."""

import pytest
from block_functions import Spec

from pipeline.distributed.executor import Executor
from pipeline.distributed.local import LocalExecutor


@pytest.fixture(params=["local", "ray"])
def executor(request) -> Executor:
    if request.param == "local":
        return LocalExecutor(threads=1)
    return request.getfixturevalue("ray_executor")


@pytest.fixture
def spec(tmp_path) -> Spec:
    return Spec(str(tmp_path))
