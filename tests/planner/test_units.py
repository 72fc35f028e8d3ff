import pytest

from pipeline.planner.units import bytes_text, flops_text, seconds_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (8 * 2**30, "8.0 GiB"),
        (2**60, "1024.0 PiB"),
    ],
)
def test_bytes_are_binary(count, text):
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 FLOP"), (2.5e12, "2.5 TFLOP"), (1e18, "1 EFLOP")]
)
def test_operations_are_decimal(count, text):
    assert flops_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.123, "0.12 s"),
        (42, "42 s"),
        (600, "10 min"),
        (12_000, "3 h 20 min"),
        (864_000, "10 d 0 h"),
    ],
)
def test_durations_have_two_units(seconds, text):
    assert seconds_text(seconds) == text
