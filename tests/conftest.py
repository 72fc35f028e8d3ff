"""Fixtures that every room's tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets and weights (``ENTK_DATA``); skips where there is none."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ENTK_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no real data: set ENTK_DATA to the folder described in the README")
    os.environ.setdefault("ENTK_DATA", str(folder))
    return folder
