"""A network trained on one sinusoid, carried to others (Maddox et al. 2019, figure 1)."""

from pipeline.analyses.few_shot import ShotTask, Source
from pipeline.analyses.sinusoids import SinusoidOptions, sinusoid_source, sinusoid_tasks
from pipeline.studies.few_shot import few_shot_findings
from pipeline.studies.study import Findings, Study, StudyOptions, Work


class SinusoidsOptions(SinusoidOptions, StudyOptions):
    """Few-shot regression of sinusoids."""


def run(options: SinusoidsOptions, work: Work) -> Findings:
    """Every method on every target sinusoid, for every seed."""

    def carry(seed: int) -> tuple[Source, list[ShotTask]]:
        source, *targets = sinusoid_tasks(options, seed)
        return sinusoid_source(options, source, seed), targets

    return few_shot_findings(work, carry, options.methods, options.seeds)


STUDY = Study(SinusoidsOptions, run)
