import pytest
from entk_problem import Problem, make_problem


@pytest.fixture(scope="session")
def problem() -> Problem:
    return make_problem()
