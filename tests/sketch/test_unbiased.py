"""The promise all random sketches share: over seeds the kernel's mean is the full kernel."""

import numpy as np
import pytest

from pipeline.sketch import make_sketch

SEEDS = 1000

KINDS = {
    "uniform": {},
    "stratified": {},
    "stratified, equal": {"allocation": "equal"},
    "block": {},
    "kronecker": {},
    "sjlt": {},
    "sjlt, three columns": {"nonzeros": 3},
}


def kind_of(name):
    return name.split(",")[0]


@pytest.mark.parametrize("name", KINDS)
def test_mean_over_seeds_is_the_full_kernel(tiny, name):
    kernels = tiny.kernels(kind_of(name), SEEDS, size=120, **KINDS[name])
    standard_errors = kernels.std(axis=0) / SEEDS**0.5
    assert (standard_errors > 0).all()
    deviations = np.abs(kernels.mean(axis=0) - tiny.K) / standard_errors
    assert deviations.max() < 4.5
    # The test has power: a bias of an eighth would show.
    assert (standard_errors < 0.03 * np.abs(np.diag(tiny.K)).mean()).all()


@pytest.mark.parametrize("name", KINDS)
def test_spread_shrinks_as_columns_are_added(tiny, name):
    spreads = [
        tiny.kernels(kind_of(name), 150, size=size, **KINDS[name]).std(axis=0).mean()
        for size in (30, 120, 300)
    ]
    assert spreads[0] > 1.15 * spreads[1] > 1.15**2 * spreads[2]


@pytest.mark.parametrize("name", [name for name in KINDS if not name.startswith("sjlt")])
def test_size_of_the_network_gives_the_full_kernel_exactly(tiny, name):
    total = make_sketch("full", tiny.model).size
    K = tiny.kernel(kind_of(name), 7, size=total, **KINDS[name])
    np.testing.assert_allclose(K, tiny.K, rtol=1e-10)


@pytest.mark.parametrize("name", [*KINDS, "layers"])
def test_same_seed_same_digest_other_seed_other_digest(tiny, name):
    options = {"size": 40, **KINDS.get(name, {"last": 2})}
    digests = [
        make_sketch(kind_of(name), tiny.model, seed=seed, **options).digest() for seed in (3, 3, 4)
    ]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("name", KINDS)
def test_size_is_what_was_asked_for(tiny, name):
    sketch = make_sketch(kind_of(name), tiny.model, size=100, **KINDS[name])
    assert sketch.size == 100 == len(sketch.column_weights)
    assert sketch.total == len(tiny.gradients[0])


@pytest.mark.parametrize("kind", ["uniform", "stratified", "block", "kronecker", "sjlt"])
def test_more_columns_than_parameters_are_refused(tiny, kind):
    total = len(tiny.gradients[0])
    with pytest.raises(ValueError, match=rf"sketch\.size: {total + 1:,} parameters"):
        make_sketch(kind, tiny.model, size=total + 1)


@pytest.mark.parametrize("kind", ["stratified", "block", "kronecker"])
def test_fewer_columns_than_a_sketch_needs_are_refused(tiny, kind):
    with pytest.raises(ValueError, match=r"sketch\.size: 2 columns cannot hold"):
        make_sketch(kind, tiny.model, size=2)


def test_spread_of_uniform_is_that_of_sampling_without_replacement(tiny):
    P, p = len(tiny.gradients[0]), 120
    products = tiny.gradients[0] * tiny.gradients[1]
    variance = P**2 / p * (1 - p / P) * products.var(ddof=1)
    measured = tiny.kernels("uniform", SEEDS, size=p)[:, 0, 1].var()
    assert measured == pytest.approx(variance, rel=0.15)


def test_spread_of_sjlt_is_that_of_a_count_sketch(tiny):
    x, y = tiny.gradients[0], tiny.gradients[1]
    p = 120
    variance = ((x @ x) * (y @ y) + (x @ y) ** 2 - 2 * (x**2 @ y**2)) / p
    measured = tiny.kernels("sjlt", SEEDS, size=p)[:, 0, 1].var()
    assert measured == pytest.approx(variance, rel=0.15)


def test_strata_take_out_the_variance_between_layers(tiny):
    uniform = tiny.kernels("uniform", 400, size=120).var(axis=0).mean()
    assert tiny.kernels("stratified", 400, size=120).var(axis=0).mean() < 0.8 * uniform
