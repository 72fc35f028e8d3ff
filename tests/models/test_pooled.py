from types import SimpleNamespace

import pytest
import torch

from pipeline.models.pooled import added_to_scores, pooled, visible

HIDDEN = torch.arange(24.0).reshape(2, 4, 3)
RIGHT_AND_LEFT = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1]]).bool()


def output(hidden=HIDDEN, pooler=None):
    return SimpleNamespace(last_hidden_state=hidden, pooler_output=pooler)


@pytest.mark.parametrize(
    ("pooling", "real", "expected"),
    [
        ("cls", RIGHT_AND_LEFT, HIDDEN[:, 0]),
        ("last", RIGHT_AND_LEFT, torch.stack([HIDDEN[0, 1], HIDDEN[1, 3]])),
        ("last", None, HIDDEN[:, 3]),
        ("mean", None, HIDDEN.mean(1)),
        ("mean", RIGHT_AND_LEFT, torch.stack([HIDDEN[0, :2].mean(0), HIDDEN[1, 1:].mean(0)])),
    ],
)
def test_pooling_looks_at_real_tokens_only(pooling, real, expected):
    torch.testing.assert_close(pooled(output(), pooling, real), expected)


def test_maps_of_a_convolutional_backbone_are_averaged_or_flattened():
    maps = torch.randn(2, 5, 3, 3)
    torch.testing.assert_close(pooled(output(maps), "mean"), maps.mean((2, 3)))
    assert pooled(output(pooler=torch.ones(2, 5, 1, 1)), "pooler").shape == (2, 5)


def test_every_position_sees_real_ones_itself_and_no_later_ones_when_causal():
    mask = visible(RIGHT_AND_LEFT, causal=True)
    assert mask[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
    assert mask[1, 0].int().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1]]
    both = visible(RIGHT_AND_LEFT, causal=False)
    assert both[0, 0].int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
    scores = added_to_scores(both, torch.float64)
    assert torch.equal(scores == 0, both)
    assert torch.isfinite(scores).all()
