"""Every sketch as the feature engine computes it, beside its definition on whole gradients."""

import numpy as np
import pytest

from pipeline.jacobian import jacobian_features
from pipeline.sketch import make_sketch


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("uniform", {"size": 90}),
        ("stratified", {"size": 90}),
        ("layers", {"last": 2}),
        ("layers", {"names": ["0", "3.bias"], "size": 30}),
        ("block", {"size": 90}),
        ("kronecker", {"size": 90}),
        ("sjlt", {"size": 90}),
        ("sjlt", {"size": 90, "nonzeros": 3}),
        ("full", {}),
    ],
)
def test_engine_features_are_the_sketch_of_the_gradients(tiny, kind, options):
    sketch = make_sketch(kind, tiny.model, seed=2, **options)
    phi = jacobian_features(tiny.model, tiny.inputs, sketch).numpy()
    expected = tiny.sketched(sketch)
    # Kronecker factors are float32 by contract; everything else is float64 throughout.
    tolerance = 1e-5 if kind == "kronecker" else 1e-10
    np.testing.assert_allclose(phi, expected, rtol=tolerance, atol=tolerance)
