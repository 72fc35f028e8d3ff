"""One undisturbed run that the tests of this folder compare with."""

import pytest
from small_runs import run

from pipeline.runs import RunFolder


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> RunFolder:
    """A finished run; its cache lies beside it."""
    base = tmp_path_factory.mktemp("undisturbed")
    return run(base / "run", base / "cache")
