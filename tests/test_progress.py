"""Bars follow their stages, in any number of runs one after the other."""

from pipeline.log import BlockDone
from pipeline.progress import progress_bars


def test_a_stage_may_come_again_when_its_bar_was_taken_away():
    with progress_bars() as progress:
        for _ in range(3):
            progress.start("features", total=10)
            progress.advance(BlockDone("features", 0, 10, seconds=0.1, peak_bytes=0))
            progress.finish("features")
