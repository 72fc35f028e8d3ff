import numpy as np
import pytest
from scipy.ndimage import zoom
from sklearn.datasets import load_digits

from pipeline.data.digits import DigitsOptions, _enlarged, build
from pipeline.data.preprocess import Preprocess, load_batch
from pipeline.types import InputError


@pytest.fixture(scope="module")
def benchmark_digits():
    return build(DigitsOptions())


def test_splits_hold_every_digit_once(benchmark_digits):
    splits = benchmark_digits.splits
    target = [*splits["train"].rows, *splits["val"].rows, *splits["id_test"].rows]
    digits = load_digits().target
    assert sorted(target) == np.flatnonzero(digits >= 5).tolist()
    assert sorted(splits["pretrain"].rows) == np.flatnonzero(digits < 5).tolist()
    assert benchmark_digits.classes == ["five", "six", "seven", "eight", "nine"]
    assert len(benchmark_digits.pretrain_classes) == 5
    for split in splits.values():
        expected = digits[split.rows] - (0 if split.name == "pretrain" else 5)
        assert np.array_equal(split.labels, expected)


def test_ood_splits_are_the_id_test_images_shifted(benchmark_digits):
    splits = benchmark_digits.splits
    assert benchmark_digits.ood_splits == ["ood_test", "ood_blur", "ood_thick"]
    for name in benchmark_digits.ood_splits:
        assert np.array_equal(splits[name].rows, splits["id_test"].rows)
        assert splits[name].derived_from == "id_test"
        assert not set(splits[name].fingerprints()) & set(splits["id_test"].fingerprints())
        assert any(note.startswith(name) for note in benchmark_digits.notes)


def test_an_upright_image_is_enlarged_bilinearly():
    small = load_digits().images[:3] / 16
    # Away from the border (where zoom and the black surround differ) both are bilinear.
    expected = np.stack(
        [zoom(image, 2, order=1, grid_mode=True, mode="nearest") for image in small]
    )
    assert np.allclose(_enlarged(small, np.zeros(3))[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1])


def test_a_quarter_turn_is_exact():
    small = load_digits().images[:3] / 16
    upright = _enlarged(small, np.zeros(3))
    turned = _enlarged(small, np.full(3, 90.0))
    assert np.allclose(turned, np.rot90(upright, axes=(1, 2))) or np.allclose(
        turned, np.rot90(upright, -1, axes=(1, 2))
    )


def test_the_same_seed_gives_the_same_bytes(benchmark_digits):
    again, other = build(DigitsOptions()), build(DigitsOptions(seed=1))
    for name, split in benchmark_digits.splits.items():
        assert again.splits[name].digest() == split.digest()
        assert other.splits[name].digest() != split.digest()


def test_blur_and_thickness_do_what_they_say(benchmark_digits):
    def mean(name):
        split = benchmark_digits.splits[name]
        return np.stack([split.source.image(int(r)) for r in split.rows]).astype(float)

    upright = mean("id_test")
    assert mean("ood_thick").mean() > 1.3 * upright.mean()
    assert mean("ood_blur").std() < 0.8 * upright.std()
    assert abs(mean("ood_test").mean() / upright.mean() - 1) < 0.1


def test_batches_are_grey_16_by_16(benchmark_digits):
    preprocess = Preprocess(DigitsOptions().preprocess)
    batch = load_batch(benchmark_digits.splits["ood_test"], slice(0, 5), preprocess)
    assert batch.shape == (5, 1, 16, 16)
    assert batch.min() >= -1
    assert batch.max() <= 1


def test_limits_and_shares_are_checked():
    small = build(DigitsOptions(limit={"train": 20, "ood_test": 10}, val=0))
    assert len(small.splits["train"]) == 20
    assert len(small.splits["ood_test"]) == 10
    assert "val" not in small.splits
    with pytest.raises(InputError, match=r"benchmark\.val"):
        build(DigitsOptions(val=0.7, id_test=0.4))
    with pytest.raises(InputError, match=r"benchmark\.limit\.ood"):
        build(DigitsOptions(limit={"ood": 3}))
