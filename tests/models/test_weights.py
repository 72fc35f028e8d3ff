import contextlib
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.models.weights import load_checkpoint, load_into
from pipeline.types import InputError


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))


class Bomb:
    def __reduce__(self):
        return (eval, ("open('exploded', 'w')",))


@pytest.mark.parametrize("wrap", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_and_prefixes_are_taken_off(tmp_path, wrap, prefix):
    state = small().state_dict()
    prefixed = {prefix + name: tensor for name, tensor in state.items()}
    content = prefixed if wrap is None else {"epoch": 3, wrap: prefixed, "optimizer": {"lr": 0.1}}
    torch.save(content, tmp_path / "w.pt")
    loaded = load_checkpoint(tmp_path / "w.pt")
    assert list(loaded) == list(state)
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_a_prefix_that_only_some_names_have_stays(tmp_path):
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "w.pt")
    assert set(load_checkpoint(tmp_path / "w.pt")) == {"module.a", "b"}


def test_safetensors_load_as_torch_files_do(tmp_path):
    state = small().state_dict()
    save_file(state, tmp_path / "w.safetensors")
    loaded = load_checkpoint(tmp_path / "w.safetensors")
    assert loaded.keys() == state.keys()


def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": small().state_dict(), "extra": Bomb()}, "w.pt")
    with open("raw.pkl", "wb") as file:
        pickle.dump({"extra": Bomb()}, file, protocol=2)
    for name in ("w.pt", "raw.pkl"):
        with pytest.raises(InputError, match=r"^model\.weights: .*could run code"):
            load_checkpoint(name)
    assert not (tmp_path / "exploded").exists()


def test_the_refusal_of_a_raw_pickle_does_not_repeat_the_advice_to_load_it(tmp_path):
    path = tmp_path / "raw.pkl"
    path.write_bytes(pickle.dumps({"extra": Bomb()}, protocol=4))
    with pytest.warns(UserWarning, match="pickle protocol 4"), pytest.raises(InputError) as refused:
        load_checkpoint(path)
    assert "Unsupported operand" in str(refused.value)
    assert "`False`" not in str(refused.value)


def test_a_compressed_checkpoint_is_refused_before_it_unfolds(tmp_path):
    torch.save({"weight": torch.zeros(100_000)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
    with pytest.raises(InputError, match=r"bomb\.pt is refused: .* decompression bomb"):
        load_checkpoint(tmp_path / "bomb.pt")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"PK\x03\x04 cut off"])
def test_a_damaged_file_is_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"^model\.weights: .*{name}"):
        load_checkpoint(tmp_path / name)


def test_a_truncated_checkpoint_is_refused(tmp_path):
    torch.save(small().state_dict(), tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"^model\.weights: .*cut\.pt is not a readable"):
        load_checkpoint(tmp_path / "cut.pt")


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"^model\.weights: no weights file at .*absent\.pt"):
        load_checkpoint(tmp_path / "absent.pt")
    with pytest.raises(InputError, match="no weights file"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("content", [{"epoch": 1}, {}, [1, 2], 3.0])
def test_a_file_without_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"^model\.weights: .*w\.pt holds"):
        load_checkpoint(tmp_path / "w.pt")


def test_half_precision_weights_become_float32_and_counters_stay_integers():
    source, target = small().half(), small()
    load_into(target, source.state_dict(), "w.pt")
    assert target[0].weight.dtype == torch.float32
    assert target[1].num_batches_tracked.dtype == torch.int64
    assert torch.equal(target[0].weight, source[0].weight.float())


def test_missing_and_unexpected_names_are_listed_and_nothing_is_loaded():
    state = small().state_dict()
    del state["0.bias"], state["1.running_var"]
    state["9.weight"] = torch.ones(1)
    target = small()
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_into(target, state, "w.pt")
    message = str(caught.value)
    assert caught.value.where == "model.weights"
    assert "Missing in the file (2): 0.bias, 1.running_var" in message
    assert "Unexpected in the file (1): 9.weight" in message
    assert all(torch.equal(before[name], t) for name, t in target.state_dict().items())


def test_long_lists_of_names_are_cut():
    state = {f"extra{i}": torch.ones(1) for i in range(30)}
    with pytest.raises(InputError, match="extra5 and 24 more"):
        load_into(small(), small().state_dict() | state, "w.pt")


def test_a_wrong_shape_is_named_with_both_shapes():
    state = small().state_dict() | {"3.weight": torch.ones(4, 2)}
    with pytest.raises(
        InputError, match=r"^model\.weights: .*3\.weight is \(4, 2\), expected \(3, 2\)"
    ):
        load_into(small(), state, "w.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(value):
    state = small().state_dict()
    state["1.running_var"] = torch.tensor([1.0, value])
    with pytest.raises(
        InputError,
        match=r"^model\.weights: .*w\.pt holds NaN or infinite weights in 1\.running_var",
    ):
        load_into(small(), state, "w.pt")


def test_quantized_weights_are_refused_by_name():
    state = small().state_dict()
    state["3.weight"] = state["3.weight"].to(torch.int8)
    with pytest.raises(InputError, match=r"^model\.weights: .*3\.weight is torch\.int8"):
        load_into(small(), state, "w.pt")


def test_old_checkpoints_without_batch_counters_load():
    state = small().state_dict()
    del state["1.num_batches_tracked"]
    load_into(small(), state, "w.pt")


def test_ignored_entries_are_dropped_and_kept_ones_stay():
    source, target = small(), small()
    head = target[3].weight.clone()
    state = {n: t for n, t in source.state_dict().items() if not n.startswith("3.")}
    load_into(target, state | {"aux.w": torch.ones(1)}, "w.pt", ignore=("aux.",), keep=("3.",))
    assert torch.equal(target[3].weight, head)
    assert torch.equal(target[0].weight, source[0].weight)


def test_no_bytes_raise_anything_but_a_refusal(tmp_path):
    rng = np.random.default_rng(0)
    torch.save({"weight": torch.ones(2, 2)}, tmp_path / "sound.pth")
    sound = (tmp_path / "sound.pth").read_bytes()
    path = tmp_path / "damaged.pth"
    for trial in range(300):
        damaged = bytearray(rng.bytes(40) if trial % 2 else sound)
        for position in rng.integers(0, len(damaged), 6):
            damaged[position] = int(rng.integers(256))
        path.write_bytes(damaged[: rng.integers(1, len(damaged) + 1)])
        with contextlib.suppress(InputError):
            load_checkpoint(path)
