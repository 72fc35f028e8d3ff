"""Fits and the network they were made with: changed since, in training mode, copied."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from pipeline.artefact import CorruptArtefactError
from pipeline.gp import EmpiricalNTK, LinearizedClassifier, load_gp, save_gp
from pipeline.gp.adapt import Task, adapt
from pipeline.gp.implicit import ImplicitOptions
from pipeline.gp.linearization import Linearization
from pipeline.gp.regression import LinearizedGP
from pipeline.gp.variational import VariationalOptions, variational_classifier
from pipeline.types import InputError

GIVEN = {"outputscale": 0.3, "noise": 0.05}


def written(model):
    with torch.no_grad():
        model[0].weight.mul_(2)


def assigned(model):
    vector_to_parameters(2 * parameters_to_vector(model.parameters()), model.parameters())


@pytest.fixture
def problem(double):
    model = copy.deepcopy(double.model)
    return model, double.x, double.y, double.x_test


@pytest.mark.parametrize("change", [written, assigned])
def test_a_process_refuses_a_network_changed_since_its_fit(problem, change):
    model, x, y, x_test = problem
    gp = LinearizedGP.of(Linearization(model), x, y, **GIVEN)
    change(model)
    with pytest.raises(InputError, match="changed after the fit"):
        gp.predict(x_test)


@pytest.mark.parametrize("change", [written, assigned])
def test_a_classifier_refuses_a_network_changed_since_its_fit(problem, change):
    model, x, y, x_test = problem
    classifier = LinearizedClassifier.of(Linearization(model), x, y.argmax(1), outputscale=1.0)
    change(model)
    with pytest.raises(InputError, match="changed after the fit"):
        classifier.probabilities(x_test)


def test_a_kernel_makes_new_rows_for_weights_assigned_to_data(problem):
    model, x, *_ = problem
    kernel = EmpiricalNTK(model)
    kernel(x).to_dense()
    assigned(model)
    wanted = EmpiricalNTK(copy.deepcopy(model))(x).to_dense()
    torch.testing.assert_close(kernel(x).to_dense(), wanted)


def test_a_folded_batch_norm_follows_weights_assigned_to_data():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 2)
    model = nn.Sequential(*layers).double().eval()
    x = torch.randn(5, 1, 6, 6, dtype=torch.float64)
    linearization = Linearization(model)
    linearization.rows(x)
    assigned(model)
    wanted = Linearization(copy.deepcopy(model)).rows(x)
    torch.testing.assert_close(linearization.rows(x), wanted)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda gp: pickle.loads(pickle.dumps(gp))])
def test_a_copy_predicts_and_a_copy_of_a_changed_one_refuses(problem, copied):
    model, x, y, x_test = problem
    gp = LinearizedGP.of(Linearization(model), x, y, **GIVEN)
    torch.testing.assert_close(copied(gp).predict(x_test).mean, gp.predict(x_test).mean)
    written(model)
    with pytest.raises(InputError, match="changed after the fit"):
        copied(gp).predict(x_test)


def test_a_refused_call_in_training_mode_leaves_running_statistics_alone():
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).eval()
    linearization = Linearization(model)
    model.train()
    before = model[1].running_mean.clone()
    with pytest.raises(InputError, match=r"eval\(\)"):
        LinearizedGP.of(linearization, torch.randn(5, 2), torch.randn(5), **GIVEN)
    assert torch.equal(model[1].running_mean, before)


def test_a_refused_load_leaves_the_network_given_alone(problem, tmp_path):
    model, x, y, _ = problem
    save_gp(LinearizedGP.of(Linearization(model), x, y, **GIVEN), tmp_path / "gp")
    other = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    before = parameters_to_vector(other.parameters()).detach()
    with pytest.raises(InputError, match=r"2\.bias is \(2,\) in it and \(3,\)"):
        load_gp(tmp_path / "gp", other)
    assert torch.equal(parameters_to_vector(other.parameters()), before)


def test_an_edited_provenance_is_refused(problem, tmp_path):
    model, x, y, _ = problem
    save_gp(LinearizedGP.of(Linearization(model, mean="network"), x, y, **GIVEN), tmp_path / "gp")
    file = tmp_path / "gp" / "provenance.json"
    file.write_text(file.read_text().replace('"mean": "network"', '"mean": "zero"'))
    with pytest.raises(CorruptArtefactError, match=r"provenance\.json is damaged"):
        load_gp(tmp_path / "gp", model)


def test_all_tasks_are_checked_before_features_are_made(problem, monkeypatch):
    model, x, y, _ = problem
    linearization = Linearization(model)
    monkeypatch.setattr(Linearization, "__call__", lambda *_: pytest.fail("features were made"))
    bad = x.clone()
    bad[3, 0] = torch.nan
    with pytest.raises(InputError, match="sample 3 of 11"):
        adapt(linearization, [Task(x, y), Task(bad, y)])


def test_tasks_that_are_no_sequence_are_refused_by_name(problem):
    model, x, y, _ = problem
    with pytest.raises(InputError, match="a sequence of tasks"):
        adapt(Linearization(model), (task for task in [Task(x, y)]))


def test_implicit_takes_options_and_refuses_true(problem):
    model, x, y, _ = problem
    with pytest.raises(InputError, match=r"ImplicitOptions\(\)"):
        LinearizedGP.of(Linearization(model), x, y, **GIVEN, implicit=True)


def test_adding_no_samples_without_features_is_refused(problem):
    model, x, y, _ = problem
    gp = LinearizedGP.of(Linearization(model), x, y, **GIVEN, implicit=ImplicitOptions())
    with pytest.raises(InputError, match="at least one sample"):
        gp.add(x[:0], y[:0])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_variational_fit_needs_no_gradients_of_its_caller(problem, mode):
    model, x, y, _ = problem
    options = VariationalOptions(steps=3)
    labels = y.argmax(1)
    _, wanted = variational_classifier(
        Linearization(model), x, labels, outputscale=1.0, options=options
    )
    with mode():
        _, found = variational_classifier(
            Linearization(model), x, labels, outputscale=1.0, options=options
        )
    assert found.elbo == wanted.elbo
