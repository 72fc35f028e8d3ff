import pytest

from pipeline.config import validated
from pipeline.planner import LimitsOptions
from pipeline.types import InputError


@pytest.mark.parametrize(
    ("written", "count"),
    [("8GiB", 8 * 2**30), ("500MB", 500 * 10**6), (12345, 12345), ("auto", "auto")],
)
def test_limits_are_bytes_with_units_or_auto(written, count):
    assert LimitsOptions(memory=written, disk=written).memory == count


@pytest.mark.parametrize("written", ["much", 0, -5, "0GiB", None, "8 GiBi"])
def test_a_senseless_limit_is_named_with_what_was_expected(written):
    with pytest.raises(InputError, match=r"memory: .*such as 8GiB or 500MB, or auto"):
        validated(LimitsOptions, {"memory": written}, "config")


def test_resolved_limits_can_be_read_again():
    limits = LimitsOptions(memory="8GiB")
    assert LimitsOptions.model_validate(limits.model_dump(mode="json")) == limits
