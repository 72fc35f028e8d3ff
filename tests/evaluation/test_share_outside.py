import numpy as np
import pytest

from pipeline.evaluation.share_outside import OutsideSpan, by_share_outside


def measured(shares: dict[str, np.ndarray], groups: int) -> OutsideSpan:
    return OutsideSpan(shares=shares, groups=groups, rank=3, n=4, tolerance=1e-6)


@pytest.mark.parametrize("groups", [1, 3, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_groups_are_equal_in_size_over_all_splits_and_means_are_those_of_their_rows(groups, seed):
    rng = np.random.default_rng(seed)
    shares = {"id_test": rng.beta(2, 5, size=40), "ood_test": rng.beta(3, 4, size=20)}
    right = {split: (rng.random(len(r)) < 0.6).astype(float) for split, r in shares.items()}
    values = {split: {"entk": {"accuracy": v, "nll": -v}} for split, v in right.items()}
    found = by_share_outside(measured(shares, groups), values)
    assert (found["rank"], found["n"], found["tolerance"]) == (3, 4, 1e-6)
    # The slow twin: sort all rows, cut them into equal parts, look every row up.
    pooled = np.sort(np.concatenate(list(shares.values())))
    parts = [set(part.tolist()) for part in np.array_split(pooled, groups)]
    for split, facts in found["splits"].items():
        members = [[i for i, r in enumerate(shares[split]) if r in part] for part in parts]
        members = [some for some in members if some]
        assert facts["n"] == [len(some) for some in members]
        assert facts["share"] == pytest.approx([shares[split][some].mean() for some in members])
        scores = facts["methods"]["entk"]
        assert scores["mean"] == pytest.approx([right[split][some].mean() for some in members])
        expected = [
            right[split][s].std(ddof=1) / len(s) ** 0.5 if len(s) > 1 else None for s in members
        ]
        assert scores["stderr"] == pytest.approx(expected)
    assert sum(sum(facts["n"]) for facts in found["splits"].values()) == 60


def test_equal_shares_make_one_group_and_a_split_without_rows_in_a_group_leaves_it_out():
    values = {s: {"entk": {"accuracy": np.ones(4)}} for s in ("id_test", "ood_test")}
    same = {"id_test": np.full(4, 0.5), "ood_test": np.full(4, 0.5)}
    found = by_share_outside(measured(same, 5), values)
    assert found["splits"]["id_test"]["n"] == [4]
    apart = {"id_test": np.linspace(0.1, 0.2, 4), "ood_test": np.linspace(0.8, 0.9, 4)}
    found = by_share_outside(measured(apart, 2), values)
    assert [found["splits"][s]["n"] for s in apart] == [[4], [4]]
    assert found["splits"]["ood_test"]["share"][0] == pytest.approx(0.85)
    assert found["splits"]["ood_test"]["group"] == [len(found["edges"]) - 2]


def test_a_group_of_one_row_has_no_standard_error():
    shares = {"id_test": np.array([0.1, 0.9])}
    values = {"id_test": {"entk": {"accuracy": np.array([1.0, 0.0])}}}
    found = by_share_outside(measured(shares, 2), values)["splits"]["id_test"]
    assert found["methods"]["entk"] == {"mean": [1.0, 0.0], "stderr": [None, None]}
