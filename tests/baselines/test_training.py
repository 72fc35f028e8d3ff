import multiprocessing
import os
import signal

import numpy as np
import pytest
import stripes as tiny
import torch
from torch import nn

from pipeline.artefact import CorruptArtefactError
from pipeline.baselines.training import (
    Images,
    Recipe,
    _batches,
    cosine,
    predict,
    train,
)
from pipeline.types import InputError

RECIPE = Recipe(learning_rate=0.1, epochs=4, batch_size=16, augmentation="crop")


def same_state(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_training_learns_and_keeps_the_best_epoch(make_net, splits):
    net = make_net()
    found = train(net, splits["train"], splits["val"], RECIPE)
    accuracies = [epoch["accuracy"] for epoch in found.history]
    assert len(accuracies) == 4
    assert found.best_accuracy == max(accuracies) > 0.6
    assert found.best_epoch == 1 + int(np.argmax(accuracies))
    net.load_state_dict(found.best_state)
    scores = predict(net, splits["val"])
    assert np.mean(scores.argmax(1) == splits["val"].labels) == found.best_accuracy


def test_training_twice_gives_the_same_bits_whatever_the_global_generator(make_net, splits):
    states = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        before = torch.random.get_rng_state()
        net = make_net()
        train(net, splits["train"], splits["val"], RECIPE)
        assert torch.equal(torch.random.get_rng_state(), before)
        states.append(net.state_dict())
    assert same_state(*states)


def test_another_seed_gives_another_run(make_net, splits):
    runs = []
    for seed in (0, 1):
        net = make_net()
        recipe = Recipe(learning_rate=0.1, epochs=1, batch_size=16, seed=seed)
        train(net, splits["train"], splits["val"], recipe)
        runs.append(net.state_dict())
    assert not same_state(*runs)


@pytest.mark.parametrize("stop", [1, 3])
def test_a_run_stopped_after_an_epoch_and_started_again_ends_at_the_same_bits(
    make_net, splits, tmp_path, stop
):
    class StopError(Exception):
        pass

    def interrupt(progress):
        if progress.epoch == stop:
            raise StopError

    whole = make_net()
    undisturbed = train(whole, splits["train"], splits["val"], RECIPE)
    checkpoint = tmp_path / "run.checkpoint"
    with pytest.raises(StopError):
        train(
            make_net(),
            splits["train"],
            splits["val"],
            RECIPE,
            checkpoint=checkpoint,
            on_epoch=interrupt,
        )
    epochs = []
    again = make_net()
    resumed = train(
        again,
        splits["train"],
        splits["val"],
        RECIPE,
        checkpoint=checkpoint,
        on_epoch=lambda progress: epochs.append(progress.epoch),
    )
    assert epochs == list(range(stop + 1, 5))
    assert resumed.history == undisturbed.history
    assert same_state(again.state_dict(), whole.state_dict())
    assert same_state(resumed.best_state, undisturbed.best_state)


def train_until_killed(checkpoint):
    torch.set_num_threads(1)

    def die(progress):
        if progress.epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    data = tiny.stripes()
    net = tiny.make_net()
    train(net, data["train"], data["val"], RECIPE, checkpoint=checkpoint, on_epoch=die)


def test_a_run_killed_with_sigkill_leaves_a_checkpoint_that_finishes_it(make_net, splits, tmp_path):
    checkpoint = tmp_path / "run.checkpoint"
    # A fork of a process that has used OpenMP may hang; a spawned one starts clean.
    child = multiprocessing.get_context("spawn").Process(
        target=train_until_killed, args=(checkpoint,)
    )
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    epochs = []
    resumed = train(
        make_net(),
        splits["train"],
        splits["val"],
        RECIPE,
        checkpoint=checkpoint,
        on_epoch=lambda progress: epochs.append(progress.epoch),
    )
    assert epochs == [3, 4]
    undisturbed = train(make_net(), splits["train"], splits["val"], RECIPE)
    assert [epoch["accuracy"] for epoch in resumed.history] == [
        epoch["accuracy"] for epoch in undisturbed.history
    ]
    for name, value in undisturbed.best_state.items():
        torch.testing.assert_close(resumed.best_state[name], value)


def test_a_checkpoint_of_other_settings_is_not_taken_up(make_net, splits, tmp_path):
    checkpoint = tmp_path / "run.checkpoint"
    train(make_net(), splits["train"], splits["val"], RECIPE, checkpoint=checkpoint)
    other = Recipe(learning_rate=0.05, epochs=2, batch_size=16)
    found = train(make_net(), splits["train"], splits["val"], other, checkpoint=checkpoint)
    fresh = train(make_net(), splits["train"], splits["val"], other)
    assert found.history == fresh.history
    kept = train(
        make_net(),
        splits["train"],
        splits["val"],
        other,
        checkpoint=checkpoint,
        provenance={"weights": "another network"},
    )
    assert kept.history == fresh.history


def test_a_damaged_checkpoint_is_refused_by_name(make_net, splits, tmp_path):
    checkpoint = tmp_path / "run.checkpoint"
    checkpoint.write_bytes(b"garbage")
    with pytest.raises(CorruptArtefactError, match=r"run\.checkpoint is damaged.*Delete it"):
        train(make_net(), splits["train"], splits["val"], RECIPE, checkpoint=checkpoint)


@pytest.mark.parametrize("rate", [1e30, 1e8])
def test_divergence_is_a_result_with_its_epoch_and_never_nan(make_net, splits, rate):
    found = train(
        make_net(),
        splits["train"],
        splits["val"],
        Recipe(learning_rate=rate, epochs=8, batch_size=16, freeze_batch_norm=True),
    )
    assert "epoch" in found.diverged
    assert all(np.isfinite(epoch["loss"]) for epoch in found.history)


def test_stopping_after_an_epoch_keeps_that_epoch(make_net, splits):
    net = make_net()
    found = train(net, splits["train"], splits["val"], RECIPE, stop_after=2)
    assert (found.epoch, found.best_epoch) == (2, 2)
    assert same_state(found.best_state, net.state_dict())
    whole = train(make_net(), splits["train"], splits["val"], RECIPE)
    assert found.history == whole.history[:2]


def test_frozen_batch_norm_keeps_its_statistics(make_net, splits):
    for frozen in (True, False):
        net = make_net()
        before = net.norm.running_mean.clone()
        recipe = Recipe(learning_rate=0.1, epochs=1, batch_size=16, freeze_batch_norm=frozen)
        train(net, splits["train"], splits["val"], recipe)
        assert torch.equal(net.norm.running_mean, before) == frozen


def test_the_schedule_is_a_half_cosine():
    assert cosine(0.1, 0, 100) == 0.1
    assert cosine(0.1, 50, 100) == pytest.approx(0.05)
    assert cosine(0.1, 100, 100) == pytest.approx(0.0)


def test_a_last_batch_of_one_sample_is_left_out():
    assert [len(b) for b in _batches(np.arange(33), 16)] == [16, 16]
    assert [len(b) for b in _batches(np.arange(34), 16)] == [16, 16, 2]
    assert [len(b) for b in _batches(np.arange(1), 16)] == [1]


def test_one_step_equals_sgd_written_out(splits):
    images = splits["train"]
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=False)).double()
    start = linear[1].weight.detach().clone()
    data = Images(lambda rows: images.load(rows).double(), images.labels, images.ids)
    recipe = Recipe(learning_rate=0.1, epochs=1, batch_size=200)
    train(linear, data, data, recipe)
    X = data.load(np.arange(97)).flatten(1)
    q = (X @ start.T).softmax(1)
    gradient = (q - torch.eye(3, dtype=torch.float64)[torch.from_numpy(images.labels)]).T @ X / 97
    torch.testing.assert_close(linear[1].weight.detach(), start - 0.1 * gradient)


def test_no_images_are_refused(make_net, splits):
    empty = Images(splits["val"].load, np.zeros(0, dtype=np.int64), [])
    with pytest.raises(InputError, match="at least one"):
        train(make_net(), splits["train"], empty, RECIPE)
