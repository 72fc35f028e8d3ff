import json
from dataclasses import asdict

from pipeline.report.drawing import look
from pipeline.report.plots import Panel, Plot, Series, draw

LINE = Series("error", [1.0, 10.0, 100.0], [1.0, 0.1, 0.01], [0.1, 0.01, 0.001])
PATH = Series("hard", [0.0, 0.5, 1.0], [0.0, 0.8, 0.0], style="path")
POINTS = Series("truth", [0.2], [0.3], style="points")
PLOT = Plot(
    "both",
    "Two panels",
    "Words.",
    [
        Panel("width", "error", [LINE], xlog=True, ylog=True),
        Panel("", "", [PATH, POINTS], frame=[(0, 0), (1, 0), (0.5, 0.87)]),
    ],
)


def test_a_plot_survives_json():
    assert Plot.of_json(json.loads(json.dumps(asdict(PLOT)))).panels[0] == PLOT.panels[0]


def test_every_panel_is_drawn_with_its_scales():
    drawn = draw(PLOT)
    first, second = drawn.figure.axes
    assert (first.get_xscale(), first.get_yscale()) == ("log", "log")
    assert first.get_xlabel() == "width"
    assert second.get_aspect() == 1.0
    assert [text.get_text() for text in drawn.figure.legends[0].get_texts()] == [
        "error", "hard", "truth",
    ]  # fmt: skip


def test_a_band_is_an_area_in_figure_and_legend():
    band = Series("interval", [0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 2.0], style="band")
    figure = draw(Plot("one", "t", "c", [Panel("x", "y", [LINE, band])])).figure
    [patch] = figure.axes[0].patches
    assert patch.get_xy()[:4].tolist() == [[0, 0], [1, 0], [1, 1], [0, 2]]
    shapes = [type(handle).__name__ for handle in figure.legends[0].legend_handles]
    assert shapes == ["Line2D", "Rectangle"]


def test_one_series_needs_no_legend():
    assert not draw(Plot("one", "t", "c", [Panel("x", "y", [LINE])])).figure.legends


def test_twelve_series_differ_in_marker_and_in_hue_with_dash():
    found = [look(number) for number in range(12)]
    assert len({own.marker for own in found}) == 12
    assert len({(own.hue, str(own.dash)) for own in found}) == 12
