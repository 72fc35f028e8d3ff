"""A network trained on one sinusoid, carried to others (Maddox et al. 2019, figure 1)."""

from pipeline.analyses.sinusoids import SinusoidOptions
from pipeline.studies.few_shot import few_shot_findings
from pipeline.studies.study import Study, StudyOptions


class SinusoidStudyOptions(SinusoidOptions, StudyOptions):
    """Few-shot regression of sinusoids."""


STUDY = Study(SinusoidStudyOptions, few_shot_findings)
