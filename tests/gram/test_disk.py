import numpy as np
import pytest

from pipeline.gram import disk, gram_blocks, gram_bytes, gram_prefixes, gram_to_disk
from pipeline.gram.memory import block_rows
from pipeline.types import InputError

N, P, WIDTH = 300, 50, 8


class Killed(BaseException):
    """Nothing may catch it, as nothing catches SIGKILL."""


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal((rows, P)).astype(np.float32) + 1
        for name, rows in [("train", N), ("val", 70), ("ood_test", 1)]
    }


SMALL = int(gram_bytes(N, 71, p=P, panel_columns=WIDTH) * 0.6)
LARGE = 10**9


def run(features, tmp_path, memory=LARGE, name="kernel", **options):
    target = tmp_path / name
    others = {key: values for key, values in features.items() if key != "train"}
    gram_to_disk(
        features["train"], others, target, tmp_path / "work", memory=memory,
        panel_columns=WIDTH, **options,
    )  # fmt: skip
    return target


def blocks_of(folder):
    return {file.stem: np.load(file) for file in folder.glob("*.npy")}


def in_memory(features, **options):
    others = {key: values for key, values in features.items() if key != "train"}
    return gram_blocks(features["train"], others, panel_columns=WIDTH, **options)


@pytest.mark.parametrize("memory", [LARGE, SMALL], ids=["one block", "row blocks"])
@pytest.mark.parametrize(
    "options", [{}, {"weights": np.full(P, 0.5)}, {"weights": np.linspace(1, 2, P)},
                {"center": True}, {"center": True, "normalize": True}],
)  # fmt: skip
def test_files_equal_the_kernels_in_memory(features, tmp_path, memory, options):
    found = blocks_of(run(features, tmp_path, memory, **options))
    expected = in_memory(features, **options)
    assert sorted(found) == sorted(expected)
    for name, block in expected.items():
        np.testing.assert_allclose(found[name], block, rtol=1e-5, atol=1e-4)
        assert found[name].dtype == block.dtype
    np.testing.assert_array_equal(found["train"], found["train"].T)


@pytest.mark.parametrize("memory", [LARGE, SMALL], ids=["one block", "row blocks"])
def test_prefixes_are_files_in_folders_of_their_own(features, tmp_path, memory):
    target = run(features, tmp_path, memory, sizes=[5, 20])
    others = {key: values for key, values in features.items() if key != "train"}
    for q, blocks in gram_prefixes(features["train"], others, [5, 20], panel_columns=WIDTH):
        found = blocks_of(target if q == P else target / str(q))
        for name, block in blocks.items():
            np.testing.assert_allclose(found[name], block, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("memory", [LARGE, SMALL], ids=["one block", "row blocks"])
@pytest.mark.parametrize("panels_before", [0, 1, 4, 7])
def test_killed_pass_goes_on_and_gives_the_same_bytes(
    features, tmp_path, monkeypatch, memory, panels_before
):
    whole_pass, read, limit = disk.weighted_panels, [], [10**9]

    def counted(stack, weightings, ranges):
        for columns, panel in whole_pass(stack, weightings, ranges):
            read.append(columns)
            if len(read) > limit[0]:
                raise Killed
            yield columns, panel

    monkeypatch.setattr(disk, "weighted_panels", counted)
    options = {"sizes": [20], "checkpoint_seconds": 0.0}
    undisturbed = run(features, tmp_path / "undisturbed", memory, **options)
    total = len(read)
    read.clear()
    limit[0] = panels_before
    with pytest.raises(Killed):
        run(features, tmp_path / "killed", memory, **options)
    limit[0] = 10**9
    resumed = run(features, tmp_path / "killed", memory, **options)
    for folder in (".", "20"):
        for name, block in blocks_of(undisturbed / folder).items():
            np.testing.assert_array_equal(np.load(resumed / folder / f"{name}.npy"), block)
    # Only the panel at which it was killed is read twice.
    assert len(read) == total + 1


def test_finished_work_is_published_again_without_reading(features, tmp_path, monkeypatch):
    first = blocks_of(run(features, tmp_path))

    def refused(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(disk, "weighted_panels", refused)
    again = blocks_of(run(features, tmp_path, name="again", center=True))
    assert not np.array_equal(first["train"], again["train"])
    np.testing.assert_array_equal(first["train"], blocks_of(tmp_path / "kernel")["train"])


def test_work_of_another_job_is_not_continued(features, tmp_path):
    run(features, tmp_path, provenance={"features": "a"})
    features["train"] = features["train"] * 2
    found = blocks_of(run(features, tmp_path, name="other", provenance={"features": "b"}))
    np.testing.assert_allclose(found["train"], in_memory(features)["train"], rtol=1e-5)


def test_memory_too_small_for_any_block_is_refused_with_the_figure(features, tmp_path):
    with pytest.raises(InputError, match=r"limits\.memory: .*300 rows needs at least .* bytes"):
        run(features, tmp_path, memory=10_000)


def test_blocks_of_rows_stay_within_the_memory():
    n, m, p, width = 44_200, 3_400, 500_000, 8192
    for memory in (6 * 2**30, 16 * 2**30, 64 * 2**30):
        rows = block_rows(n, m, memory, p=p, panel_columns=width)
        assert rows % 64 == 0 or rows == n
        assert 1.1 * 4 * (rows * n + 2 * (n + rows) * width) <= memory
    assert gram_bytes(n, m, p=p) > 4 * n * n
