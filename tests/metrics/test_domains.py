import numpy as np
import pytest

from pipeline.metrics.classification import classification_metrics
from pipeline.metrics.groups import GroupScore, group_scores, worst_group
from pipeline.types import InputError

SCORES = np.eye(3)[[0, 1, 2, 0, 1, 2]]
LABELS = np.array([0, 1, 0, 0, 0, 1])
GROUPS = np.array(["day", "day", "day", "night", "night", "night"])


def test_each_domain_has_its_own_accuracy_and_the_lowest_is_the_worst():
    found = group_scores(SCORES, LABELS, GROUPS)
    assert found == {"day": GroupScore(3, 2 / 3), "night": GroupScore(3, 1 / 3)}
    assert worst_group(found) == "night"
    metrics = classification_metrics(SCORES, LABELS, 1.0, GROUPS)
    assert metrics["worst_group_accuracy"] == 1 / 3


def test_splits_without_domains_have_no_worst_one():
    assert "worst_group_accuracy" not in classification_metrics(SCORES, LABELS, 1.0)


def test_domains_that_do_not_match_the_rows_are_refused():
    with pytest.raises(InputError, match="6 domains"):
        group_scores(SCORES, LABELS, GROUPS[:4])
