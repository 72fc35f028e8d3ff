import pytest
import torch
from small_kernels import features

from pipeline.analyses.active import RULES, active_rounds, labels_of, outputs_elsewhere
from pipeline.analyses.lookahead import DensePool, LookAhead
from pipeline.types import InputError

M, CLASSES = 40, 3


@pytest.fixture
def pool():
    phi = features(M + 10, seed=4)
    labels = (phi[:, :CLASSES] / phi[:, :CLASSES].std(dim=0)).argmax(dim=1).numpy()
    base = torch.full((M, CLASSES), 1 / CLASSES, dtype=torch.float64)
    K = phi @ phi.T
    start = LookAhead.start(DensePool(K[:M, :M]), base, [0, 1], labels[:2].tolist(), 0.01)
    return start, labels, K, phi


@pytest.mark.parametrize("name", RULES)
def test_every_rule_asks_for_new_samples_round_by_round(pool, name):
    start, labels, _, phi = pool
    rounds = list(
        active_rounds(
            start,
            RULES[name],
            labels_of(labels),
            batch=4,
            rounds=3,
            penultimate=phi[:M, :5].numpy(),
        )
    )
    asked = [sample for each in rounds for sample in each.asked]
    assert len(asked) == len(set(asked)) == 14
    assert rounds[-1].state.labelled.tolist() == asked


@pytest.mark.parametrize("name", RULES)
def test_the_same_seed_asks_for_the_same(pool, name):
    start, labels, _, phi = pool

    def run():
        return [
            each.asked
            for each in active_rounds(
                start, RULES[name], labels_of(labels), batch=3, rounds=2, candidates=20,
                penultimate=phi[:M, :5].numpy(),
            )
        ]  # fmt: skip

    assert run() == run()


def test_the_final_state_is_the_joint_fit_of_all_labels(pool):
    start, labels, K, _ = pool
    *_, last = active_rounds(start, RULES["mlmoc"], labels_of(labels), batch=5, rounds=2)
    chosen = last.state.labelled.tolist()
    joint = LookAhead.start(start.kernel, start.base, chosen, labels[chosen].tolist(), 0.01)
    torch.testing.assert_close(last.state.outputs(), joint.outputs(), rtol=1e-9, atol=1e-9)
    on_pool = outputs_elsewhere(joint, K[:M, :M], start.base)
    torch.testing.assert_close(on_pool, joint.outputs(), rtol=1e-9, atol=1e-9)


def test_labels_improve_the_predictions_elsewhere(pool):
    start, labels, K, _ = pool
    base = torch.full((10, CLASSES), 1 / CLASSES, dtype=torch.float64)

    wanted = torch.nn.functional.one_hot(torch.from_numpy(labels[M:]), CLASSES)

    def error(state):
        return float((outputs_elsewhere(state, K[M:, :M], base) - wanted).square().mean())

    smooth = LookAhead.start(start.kernel, start.base, [0, 1], labels[:2].tolist(), 2.0)
    first, *_, last = active_rounds(smooth, RULES["emoc"], labels_of(labels), batch=6, rounds=5)
    assert len(last.state.labelled) == 32
    assert error(last.state) < error(first.state)


def test_a_rule_that_needs_activations_says_so(pool):
    start, labels, _, _ = pool
    with pytest.raises(InputError, match="penultimate"):
        list(active_rounds(start, RULES["badge"], labels_of(labels), batch=2, rounds=1))
