import numpy as np
import pytest
import torch

from pipeline.analyses.few_shot import METHODS, ShotTask, Training, pooled, task_score, train
from pipeline.analyses.precipitation import StationOptions, day_means, station_tasks
from pipeline.analyses.sinusoids import SinusoidOptions, sinusoid_source, sinusoid_tasks
from pipeline.gp.predictive import Predictive
from pipeline.types import InputError


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Three stations over two years, rain rising through the year and with the station."""
    dates = np.arange(np.datetime64("1999-01-01"), np.datetime64("2001-01-01"))
    whole = dates.astype("datetime64[D]").astype(object)
    number = np.array([d.year * 10_000 + d.month * 100 + d.day for d in whole], dtype=np.int32)
    day = np.array([d.timetuple().tm_yday for d in whole])
    stations = [10, 20, 30]
    rain = np.concatenate([s + day for s in stations]).astype(np.int16)
    flagged = np.zeros(len(rain), dtype=bool)
    flagged[0], rain[0] = True, 9_999
    path = tmp_path_factory.mktemp("rain") / "rain.npz"
    np.savez(
        path,
        station=np.repeat(np.array(stations, dtype=np.int16), len(dates)),
        yyyymmdd=np.tile(number, 3),
        prcp_hundredths_inch=rain,
        qc_flagged=flagged,
    )
    return path


def test_products_in_parameter_space_predict_what_the_explicit_kernel_predicts():
    source, *targets = sinusoid_tasks(SinusoidOptions(tasks=3), seed=0)
    carried = sinusoid_source(SinusoidOptions(epochs=20), source, seed=0)
    by_products, explicit = (
        pooled(
            [
                task_score(*pair)
                for pair in zip(METHODS[name](carried, targets), targets, strict=True)
            ]
        )
        for name in ("finite_ntk_fisher", "finite_ntk")
    )
    assert by_products.tasks == 2
    assert by_products.rmse == pytest.approx(explicit.rmse, rel=1e-2)


def test_day_means_leave_out_flagged_values_and_leap_days(archive):
    stations, means = day_means(archive)
    assert stations.tolist() == [10, 20, 30]
    # 1 January: the flagged 9,999 of 1999 is gone. From March on 2000 is one day later.
    assert means[0, 0] == 11
    assert means[1, 0] == 21
    assert means[1, 59] == 20 + (60 + 61) / 2


def test_an_archive_of_something_else_is_refused(tmp_path):
    np.savez(tmp_path / "digits.npz", images=np.zeros(3))
    with pytest.raises(InputError, match="holds no stations: it lacks station, yyyymmdd"):
        day_means(tmp_path / "digits.npz")


def test_stations_are_standardized_with_their_context_alone(archive):
    task = station_tasks(StationOptions(path=archive, source=1))[0]
    assert task.name == "station 20"
    assert float(task.y.mean()) == pytest.approx(0, abs=1e-12)
    assert float(task.y.std()) == pytest.approx(1)
    assert float(task.y_test.mean()) > 1
    with pytest.raises(InputError, match="station 3 of 3"):
        station_tasks(StationOptions(path=archive, source=3))


def test_sinusoids_have_the_amplitudes_and_noise_asked_for():
    tasks = sinusoid_tasks(SinusoidOptions(test_points=500), seed=0)
    assert len(tasks) == 10
    assert all(len(task.x) == 10 and float(task.y_test.abs().max()) < 5.2 for task in tasks)
    again = sinusoid_tasks(SinusoidOptions(test_points=500), seed=0)
    assert torch.equal(tasks[3].y, again[3].y)


def test_scores_are_the_textbooks():
    task = ShotTask(*(torch.zeros(2, 1), torch.zeros(2)) * 2)
    found = Predictive(torch.tensor([[3.0], [0.0]]).double(), torch.ones(2, 1).double(), 0.0)
    scores = pooled([task_score(found, task)])
    assert scores.rmse == pytest.approx((9 / 2) ** 0.5)
    assert scores.coverage == 0.5
    assert scores.nll == pytest.approx(0.5 * np.log(2 * np.pi) + 9 / 4)


def test_divergence_is_said():
    model = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Linear(8, 1))
    x = torch.randn(10, 1)
    with pytest.raises(InputError, match="diverged"):
        train(model, x, 100 * x[:, 0], Training(10.0, 0.9, 5, 50))
