import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.baselines import grid
from pipeline.baselines.finetune import FinetuneOptions
from pipeline.baselines.grid import train_point, tune
from pipeline.baselines.lp_ft import LpFtOptions, with_probe_head
from pipeline.baselines.probe import Linear
from pipeline.baselines.scratch import untrained
from pipeline.baselines.training import Images, Recipe
from pipeline.models.squeezenet import SqueezeNet
from pipeline.types import InputError

RECIPE = Recipe(learning_rate=0.1, epochs=2, batch_size=16)
MADE_BY = {"weights": "abc", "data": "def"}


def tuned(make_net, splits, folder, rates=(0.01, 0.1), **options):
    return tune(
        make_net,
        splits,
        RECIPE,
        learning_rates=rates,
        folder=folder,
        provenance=MADE_BY,
        **{"extensions": 0, **options},
    )


def test_the_rate_of_best_validation_accuracy_is_chosen_and_scored(make_net, splits, tmp_path):
    fit = tuned(make_net, splits, tmp_path)
    best = max(fit.points, key=lambda point: point.accuracy)
    assert fit.selected["learning_rate"] == best.learning_rate
    assert list(fit.scores) == ["val", "id_test", "ood_test"]
    on_val = np.mean(fit.scores["val"].argmax(1) == splits["val"].labels)
    assert on_val == best.accuracy
    record = fit.record()
    assert record["curve"]["splits"]["val"][fit.selected["epoch"] - 1] == best.accuracy
    assert [entry["learning_rate"] for entry in record["grid"]] == [0.01, 0.1]


def test_a_second_call_trains_nothing_and_gives_the_same_scores(
    make_net, splits, tmp_path, monkeypatch
):
    first = tuned(make_net, splits, tmp_path)
    monkeypatch.setattr(grid, "train", lambda *a, **k: pytest.fail("trained again"))
    second = tuned(make_net, splits, tmp_path)
    assert second.selected == first.selected
    np.testing.assert_array_equal(second.scores["ood_test"], first.scores["ood_test"])
    assert not list(tmp_path.glob("*.checkpoint"))


def test_points_trained_elsewhere_are_found_finished(make_net, splits, tmp_path, monkeypatch):
    for rate in (0.1, 0.01):
        recipe = Recipe(learning_rate=rate, epochs=2, batch_size=16)
        train_point(
            make_net, splits["train"], splits["val"], recipe, folder=tmp_path, provenance=MADE_BY
        )
    monkeypatch.setattr(grid, "train", lambda *a, **k: pytest.fail("trained again"))
    assert tuned(make_net, splits, tmp_path).selected is not None


def test_other_weights_or_data_are_trained_again(make_net, splits, tmp_path):
    folder = tmp_path / "lr_0.1"
    for provenance in (MADE_BY, {**MADE_BY, "data": "other"}):
        train_point(
            make_net, splits["train"], splits["val"], RECIPE, folder=tmp_path, provenance=provenance
        )
        assert provenance["data"] in (folder / "provenance.json").read_text()


def test_rates_that_are_nearly_equal_have_a_folder_each(make_net, splits, tmp_path):
    fit = tuned(make_net, splits, tmp_path, rates=(0.1, 0.100001))
    assert len({point.path for point in fit.points}) == len(fit.points)


def test_a_diverged_rate_is_reported_and_the_grid_goes_on(make_net, splits, tmp_path):
    fit = tuned(make_net, splits, tmp_path, rates=(0.1, 1e30))
    assert fit.selected["learning_rate"] == 0.1
    assert any("1e+30 diverged" in note for note in fit.notes)
    assert fit.record()["grid"][1]["accuracy"] is None


def test_a_grid_in_which_all_diverge_is_a_result(make_net, splits, tmp_path):
    fit = tuned(make_net, splits, tmp_path, rates=(1e29, 1e30))
    assert fit.selected is None
    assert fit.scores == {}
    assert fit.record()["status"] == "diverged"


def test_the_grid_grows_where_its_best_lies_at_the_end(make_net, splits, tmp_path):
    fit = tuned(make_net, splits, tmp_path, rates=(1e-5, 1e-4), extensions=5)
    rates = [point.learning_rate for point in fit.points]
    assert rates == sorted(rates)
    assert max(rates) > 1e-3
    assert 3e-4 in rates
    best = max(fit.points, key=lambda point: point.accuracy)
    assert fit.selected["learning_rate"] == best.learning_rate


def test_a_choice_of_the_last_epoch_is_remarked_upon(tmp_path):
    def remarks(epoch):
        points = [grid.Point(r, 0.5, epoch, [], None, tmp_path) for r in (0.01, 0.1, 1.0)]
        return [note for note in grid._notes(points, 3) if "the last of 3 epochs" in note]

    assert remarks(3)
    assert not remarks(2)


def test_labels_of_test_splits_never_reach_the_choice(make_net, splits, tmp_path):
    clean = tuned(make_net, splits, tmp_path / "a")
    garbage = {
        name: images
        if name in ("train", "val")
        else Images(images.load, np.zeros_like(images.labels), images.ids)
        for name, images in splits.items()
    }
    blind = tuned(make_net, garbage, tmp_path / "b")
    assert blind.selected == clean.selected
    np.testing.assert_array_equal(blind.scores["ood_test"], clean.scores["ood_test"])


def test_refitting_uses_all_rows_and_keeps_validation_scores_held_out(make_net, splits, tmp_path):
    parts = [splits["train"], splits["val"]]
    pixels = torch.cat([part.load(np.arange(len(part.labels))) for part in parts])
    both = Images(
        lambda rows: pixels[torch.from_numpy(rows)],
        np.concatenate([part.labels for part in parts]),
        [*parts[0].ids, *parts[1].ids],
    )
    once = tuned(make_net, splits, tmp_path)
    again = tuned(make_net, splits, tmp_path, refit=both)
    assert again.selected == once.selected
    np.testing.assert_array_equal(again.scores["val"], once.scores["val"])
    assert not np.array_equal(again.scores["id_test"], once.scores["id_test"])


def test_a_grid_that_learned_nothing_says_so(make_net, splits, tmp_path):
    constant = splits | {"val": replace(splits["val"], labels=np.zeros_like(splits["val"].labels))}
    hopeless = tuned(make_net, constant, tmp_path / "constant", rates=(1e-12,))
    assert "nothing was learned" in hopeless.notes[-1]
    learned = tuned(make_net, splits, tmp_path / "learned", rates=(0.1,))
    assert not any("nothing was learned" in note for note in learned.notes)


def test_training_from_scratch_forgets_the_pretrained_weights(make_net):
    def pretrained():
        net = make_net()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.fill_(7.0)
        net.norm.running_mean.fill_(7.0)
        return net

    first, same, other = (untrained(pretrained, seed)() for seed in (0, 0, 1))
    assert not any((p == 7.0).any() for p in first.parameters())
    assert not (first.norm.running_mean == 7.0).any()
    assert torch.equal(first.conv.weight, same.conv.weight)
    assert not torch.equal(first.conv.weight, other.conv.weight)


def test_a_networks_own_rule_has_the_last_word():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        own = SqueezeNet(classes=3)
    again = untrained(lambda: copy.deepcopy(own), 1)()
    first, deepest = "features.0.weight", "features.12.squeeze.weight"
    for name in (first, deepest):
        drawn, before = again.get_parameter(name), own.get_parameter(name)
        assert not torch.equal(drawn, before)
        assert drawn.std().item() == pytest.approx(before.std().item(), rel=0.05)


def test_parameters_that_cannot_be_drawn_anew_are_named(make_net):
    def with_bare_parameter():
        net = make_net()
        net.token = torch.nn.Parameter(torch.zeros(3))
        return net

    with pytest.raises(InputError, match="token"):
        untrained(with_bare_parameter, 0)()


def test_lp_ft_starts_at_the_probes_predictions(make_net, splits):
    rng = np.random.default_rng(0)
    probe = Linear(rng.normal(size=(3, 6)), rng.normal(size=3))
    net = with_probe_head(make_net, "fc", probe)()
    captured = []
    net.fc.register_forward_pre_hook(lambda module, inputs: captured.append(inputs[0]))
    scores = net(splits["val"].load(np.arange(5)))
    expected = probe.scores(captured[0].detach().numpy())
    np.testing.assert_allclose(scores.detach().numpy(), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="does not fit"):
        with_probe_head(make_net, "fc", Linear(np.zeros((4, 6)), np.zeros(4)))()


def test_the_options_are_the_papers():
    recipe = FinetuneOptions().recipe((32, 32))
    assert (recipe.epochs, recipe.batch_size, recipe.momentum) == (20, 64, 0.9)
    assert recipe.augmentation == "crop_flip"
    assert FinetuneOptions().learning_rates == (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    assert LpFtOptions().learning_rates[0] == 3e-7
