import torch
from torch import nn

from pipeline.sketch import make_sketch


def test_factors_have_the_shapes_of_the_matrix_view():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(40, 5))
    sketch = make_sketch("kronecker", model, size=90)
    covered = 0
    for name, parameter in model.named_parameters():
        left, right = sketch.factors(name)
        rows = parameter.shape[0]
        assert left.shape[1] == rows
        assert right.shape[1] == (parameter.numel() // rows if parameter.ndim > 1 else 1)
        assert sketch.offsets[name] == covered
        assert left.dtype == right.dtype == torch.float32
        covered += len(left) * len(right)
    assert covered == sketch.size


def test_factors_do_not_depend_on_the_order_of_asking():
    sketch = make_sketch("kronecker", nn.Linear(6, 5), size=12)
    weight, bias = sketch.factors("weight"), sketch.factors("bias")
    assert torch.equal(sketch.factors("weight")[0], weight[0])
    assert torch.equal(sketch.factors("bias")[0], bias[0])


def test_long_side_of_an_embedding_gets_no_larger_rank_than_the_short_side():
    sketch = make_sketch("kronecker", nn.Embedding(3000, 16), size=100)
    left, right = sketch.factors("weight")
    assert (len(left), len(right)) == (10, 10)
