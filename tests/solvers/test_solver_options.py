import pytest
import torch
from pydantic import ValidationError

from pipeline.solvers.auto import choose_solver
from pipeline.solvers.feature_kernel import FeatureKernel
from pipeline.solvers.operator import DenseKernel
from pipeline.solvers.options import SolverOptions
from pipeline.types import InputError


def test_ridges_are_a_search_a_number_or_a_list():
    assert SolverOptions().ridges() == "telescopic"
    assert SolverOptions(ridge=0.5).ridges() == (0.5,)
    assert SolverOptions(ridge=(1.0, 0.1)).ridges() == (1.0, 0.1)
    for wrong in (-1.0, (), (1.0, float("inf")), "coarse"):
        with pytest.raises(ValidationError):
            SolverOptions(ridge=wrong)


def test_auto_depends_on_rows_targets_path_and_kernel():
    small, large = (
        DenseKernel(torch.zeros(10, 10)),
        DenseKernel(torch.zeros(1, 1).expand(9000, 9000)),
    )
    assert choose_solver("auto", small, 3, path=True).solver == "eigh"
    assert choose_solver("auto", large, 20, path=True).solver == "lanczos"
    assert choose_solver("auto", large, 1000, path=True).solver == "eigh"
    assert choose_solver("auto", small, 3, path=False).solver == "cholesky"
    assert choose_solver("auto", large, 3, path=False).solver == "cg"
    free = FeatureKernel(torch.zeros(10, 3))
    assert choose_solver("auto", free, 3, path=True).solver == "lanczos"
    assert choose_solver("auto", free, 3, path=False).solver == "cg"
    assert choose_solver("nesterov", small, 3, path=True).reason == "asked for"
    with pytest.raises(InputError, match="choose 'auto'"):
        choose_solver("sgd", small, 3, path=True)
