"""One station's year of precipitation, carried to the others (Maddox et al. 2019, figure 2)."""

from pipeline.analyses.few_shot import ShotTask, Source
from pipeline.analyses.precipitation import (
    StationOptions,
    precipitation_source,
    station_tasks,
)
from pipeline.studies.few_shot import few_shot_findings
from pipeline.studies.study import Findings, Study, StudyOptions, Work


class PrecipitationOptions(StationOptions, StudyOptions):
    """Few-shot regression of precipitation over the year."""


def run(options: PrecipitationOptions, work: Work) -> Findings:
    """Every method on every target station, for every seed of the network."""
    source, *targets = station_tasks(options)

    def carry(seed: int) -> tuple[Source, list[ShotTask]]:
        return precipitation_source(options, source, seed), targets

    return few_shot_findings(work, carry, options.methods, options.seeds)


STUDY = Study(PrecipitationOptions, run)
