"""Look-ahead by block updates against a refit for every candidate and label."""

import pytest
import torch
from small_kernels import features

from pipeline.analyses.batch_query import query_batch
from pipeline.analyses.lookahead import DensePool, LookAhead, rows_of
from pipeline.analyses.pool import StoredPool
from pipeline.types import InputError

M, CLASSES, RIDGE = 24, 3, 0.05
LABELLED, LABELS = [2, 9, 17, 20, 5], [0, 2, 1, 1, 0]
CANDIDATES = [0, 1, 3, 7, 23]


def pool_kernel(q):
    phi = features(M * q, p=60, seed=q)
    return phi @ phi.T


def base_outputs():
    generator = torch.Generator().manual_seed(5)
    return 0.3 * torch.randn(M, CLASSES, generator=generator, dtype=torch.float64)


def refit(K, q, base, labelled, labels):
    """Kernel regression around the base outputs by one dense solve."""
    rows = rows_of(torch.tensor(labelled), q)
    Y = torch.nn.functional.one_hot(torch.tensor(labels), CLASSES).double()
    r = (Y - base[labelled]).reshape(len(rows), -1)
    A = K[rows][:, rows] + RIDGE * torch.eye(len(rows), dtype=torch.float64)
    return base + (K[:, rows] @ torch.linalg.solve(A, r)).reshape(base.shape)


@pytest.fixture(params=[1, CLASSES], ids=["pseudo", "full"])
def q(request):
    return request.param


@pytest.fixture
def state(q):
    return LookAhead.start(DensePool(pool_kernel(q), q), base_outputs(), LABELLED, LABELS, RIDGE)


def test_the_outputs_are_kernel_regression_around_the_base(q, state):
    expected = refit(pool_kernel(q), q, base_outputs(), LABELLED, LABELS)
    torch.testing.assert_close(state.outputs(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("from_base", [False, True])
def test_scores_equal_refits_for_every_candidate_and_label(q, state, from_base):
    K, base = pool_kernel(q), base_outputs()
    reference = base if from_base else refit(K, q, base, LABELLED, LABELS)
    given = base if from_base else None
    likely, expected = [], []
    for x in CANDIDATES:
        sizes = torch.stack(
            [
                (refit(K, q, base, [*LABELLED, x], [*LABELS, y]) - reference).norm(dim=1).sum()
                for y in range(CLASSES)
            ]
        )
        likely.append(sizes[reference[x].argmax()])
        expected.append((reference[x].softmax(dim=0) * sizes).sum())
    mlmoc = state.scores(CANDIDATES, "mlmoc", given)
    emoc = state.scores(CANDIDATES, "emoc", given)
    torch.testing.assert_close(mlmoc, torch.stack(likely), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(emoc, torch.stack(expected), rtol=1e-9, atol=1e-10)


def test_changes_of_one_candidate_equal_the_refit(q, state):
    K, base = pool_kernel(q), base_outputs()
    expected = refit(K, q, base, [*LABELLED, 7], [*LABELS, 1]) - base
    torch.testing.assert_close(state.changes(7, 1, base), expected, rtol=1e-9, atol=1e-10)


def test_labels_that_come_one_by_one_give_the_joint_fit(q):
    kernel, base = DensePool(pool_kernel(q), q), base_outputs()
    step = LookAhead.start(kernel, base, [], [], RIDGE)
    for sample, label in zip(LABELLED, LABELS, strict=True):
        step = step.reveal([sample], [label])
    joint = LookAhead.start(kernel, base, LABELLED, LABELS, RIDGE)
    torch.testing.assert_close(step.outputs(), joint.outputs(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(step.factor, joint.factor, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("strategy", ["mlmoc", "emoc"])
def test_a_batch_supposes_the_most_likely_label_of_what_it_has_chosen(state, strategy):
    expected, left, supposed = [], list(CANDIDATES), state
    while left:
        best = left.pop(int(supposed.scores(left, strategy, temperature=0.7).argmax()))
        expected.append(best)
        supposed = supposed.reveal([best], [int(supposed.outputs()[best].argmax())])
    assert query_batch(state, CANDIDATES, len(CANDIDATES), strategy, 0.7) == expected


def test_a_batch_does_not_ask_for_a_copy_of_what_it_asked_for():
    phi = features(12, seed=3)
    phi[5] = phi[4]
    state = LookAhead.start(DensePool(phi @ phi.T), torch.zeros(12, 2), [0], [1], 1e-6)
    single = state.scores(range(1, 12))
    assert float(single[3]) == pytest.approx(float(single[4]))
    assert not {4, 5} <= set(query_batch(state, range(1, 12), 6))


def test_stored_features_give_the_dense_kernel():
    phi = features(M, p=60, seed=1).float()
    pool = StoredPool(phi)
    K = phi.double() @ phi.double().T
    samples = torch.tensor([3, 0, 3])
    torch.testing.assert_close(pool.columns(samples), K[:, samples], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("samples", "labels", "message"),
    [
        ([2], [0], "labelled already .*first: 2"),
        ([3, 3], [0, 1], "1 different"),
        ([3], [3], r"labels are 0 … 2"),
        ([24], [0], r"samples are 0 … 23"),
    ],
)
def test_labels_that_cannot_be_are_refused(state, samples, labels, message):
    with pytest.raises(InputError, match=message):
        state.reveal(samples, labels)


def test_a_candidate_that_is_labelled_is_refused(state):
    with pytest.raises(InputError, match="must not overlap"):
        state.scores([0, 9])
