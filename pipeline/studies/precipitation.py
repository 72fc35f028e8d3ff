"""One station's year of precipitation, carried to the others (Maddox et al. 2019, figure 2)."""

from pipeline.analyses.precipitation import PrecipitationOptions
from pipeline.studies.few_shot import few_shot_findings
from pipeline.studies.study import Study, StudyOptions


class PrecipitationStudyOptions(PrecipitationOptions, StudyOptions):
    """Few-shot regression of precipitation over the year."""


STUDY = Study(PrecipitationStudyOptions, few_shot_findings)
