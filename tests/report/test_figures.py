"""What single figures show of a run, and what their captions say of it."""

from dataclasses import replace

import pytest

from pipeline.artefact import read_json, write_json
from pipeline.report.calibration_figures import reliability_figure
from pipeline.report.curve_figures import iterations_figure, ridge_figure
from pipeline.report.drawing import HUES
from pipeline.report.pair_figures import agreement_figure, differences_figure
from pipeline.report.record import Method, Run, read_run
from pipeline.report.results import beyond_table, results_table
from pipeline.report.shift_figures import shift_figure


def method(run: Run, name: str) -> Method:
    return next(method for method in run.methods if method.name == name)


def with_fit(run: Run, name: str, **fit: object) -> tuple[Run, Method]:
    """The run with other facts in one method's fit, and that method."""
    methods = [replace(m, fit={**m.fit, **fit}) if m.name == name else m for m in run.methods]
    changed = replace(run, methods=methods)
    return changed, method(changed, name)


def many_methods(run: Run, count: int) -> Run:
    """The run with its first method copied until there are ``count``."""
    names = [f"a_rather_long_variant_{i}" for i in range(count - len(run.methods))]
    copies = [replace(run.methods[0], name=name) for name in names]
    everything = [*(m.name for m in run.methods), *names]
    share = [[1.0 if a == b else 0.5 for b in everything] for a in everything]
    agreement = {"methods": everything, "same_class": share, "error_consistency": share}
    splits = {
        split: {**facts, "agreement": agreement}
        for split, facts in run.comparisons["splits"].items()
    }
    return replace(
        run,
        methods=[*run.methods, *copies],
        comparisons={**run.comparisons, "splits": splits},
    )


@pytest.mark.parametrize("count", [5, 8, 12, 14])
def test_no_text_of_the_agreement_overlaps_or_leaves_the_figure(make_run, count):
    figure = agreement_figure(many_methods(read_run(make_run()), count)).figure
    figure.draw_without_rendering()
    [axes] = figure.axes
    assert len(axes.texts) == count * (count - 1)
    texts = [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels()]
    texts += [text for legend in figure.legends for text in legend.get_texts()]
    boxes = [text.get_window_extent() for text in texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    frame = figure.bbox
    assert all(frame.x0 <= b.x0 and b.x1 <= frame.x1 and b.y1 <= frame.y1 for b in boxes)


def test_too_many_methods_for_numbers_are_told_by_colour(make_run):
    figure = agreement_figure(many_methods(read_run(make_run()), 20)).figure
    axes, colours = figure.axes
    assert not axes.texts
    assert colours.get_xlim() == (0, 1)


def test_twelve_methods_of_the_scatter_have_twelve_markers(make_run):
    axes = shift_figure(many_methods(read_run(make_run()), 12)).figure.axes[0]
    points = [bars.lines[0] for bars in axes.containers]
    assert len({point.get_marker() for point in points}) == 12
    assert {point.get_color() for point in points} == set(HUES)


def test_error_bars_of_the_scatter_lie_inside_its_frame(make_run):
    run = read_run(make_run())
    axes = shift_figure(run).figure.axes[0]
    for found in run.methods:
        for split, (low, high) in (("id_test", axes.get_xlim()), ("ood_test", axes.get_ylim())):
            facts = found.splits[split]
            assert low < facts["accuracy"] - facts["stderr"]
            assert facts["accuracy"] + facts["stderr"] < high


def test_the_scatter_counts_fitted_points_outside_its_frame(make_run):
    folder = make_run()
    assert "outside the frame" not in shift_figure(read_run(folder)).caption
    path = folder / "comparisons" / "comparisons.json"
    told = read_json(path)
    told["effective_robustness"]["ood_test"]["ridges"]["entk"] += [[0.05, 0.04], [0.06, 0.05]]
    write_json(path, told)
    caption = shift_figure(read_run(folder)).caption
    assert "(n = 35, r = 0.97, slope 0.70); 2 of the 35 points lie outside the frame." in caption


def test_heights_above_a_line_that_explains_little_are_not_ranked(make_run):
    folder = make_run()
    path = folder / "comparisons" / "comparisons.json"
    told = read_json(path)

    def marked() -> int:
        table = beyond_table(read_run(folder))
        (place,) = (
            i for i, column in enumerate(table.columns) if column.metric == "effective_robustness"
        )
        return sum(row.cells[place].best for row in table.rows)

    assert marked() == 1
    told["effective_robustness"]["ood_test"]["line"]["correlation"] = 0.6
    write_json(path, told)
    assert marked() == 0
    assert "with care" in shift_figure(read_run(folder)).caption


def test_values_printed_alike_are_marked_alike(make_run):
    folder = make_run()
    metrics = read_json(folder / "metrics.json")
    metrics["methods"]["finetune"]["splits"]["id_test"]["accuracy"] = 0.6442
    write_json(folder / "metrics.json", metrics)
    table = results_table(read_run(folder))
    assert [row.label for row in table.rows if row.cells[0].best] == [
        "Fine-tuning", "eNTK, converged",
    ]  # fmt: skip


def test_differences_show_every_test_split_and_their_whole_label(make_run):
    run = read_run(make_run())
    told = run.comparisons["splits"]
    methods = [replace(m, splits={**m.splits, "ood_blur": m.splits["val"]}) for m in run.methods]
    comparisons = {**run.comparisons, "splits": {**told, "ood_blur": told["ood_test"]}}
    figure = differences_figure(replace(run, methods=methods, comparisons=comparisons)).figure
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["ID test", "OOD test", "OOD blur"]
    figure.draw_without_rendering()
    label = figure._supxlabel.get_window_extent()
    assert figure.bbox.x0 <= label.x0
    assert label.x1 <= figure.bbox.x1


def test_reliability_has_a_panel_a_method_and_a_line_a_test_split(make_run):
    run = read_run(make_run())
    panels = [axes for axes in reliability_figure(run).figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in panels] == [m.label for m in run.methods]
    assert {len(axes.lines) for axes in panels} == {1 + 2}


def test_the_stopped_machine_lies_on_its_curve_over_the_ridge(make_run):
    run = read_run(make_run(curves=True))
    stopped = {"ridge": 1e-6, "iterations": 30, "stopping": "early"}
    chosen = replace(method(run, "entk_early_stopping"), selected=stopped)
    axes = ridge_figure(run, chosen).figure.axes[0]
    curves = {line.get_label(): line for line in axes.lines if len(line.get_xdata()) == 8}
    assert set(curves) == {"Validation", "ID test", "OOD test"}
    planes = chosen.fit["planes"]
    wanted = planes["splits"]["id_test"][planes["iterations"].index(30) :: 5]
    assert sorted(curves["ID test"].get_ydata()) == pytest.approx([100 * v for v in sorted(wanted)])
    assert axes.get_xlabel() == "ridge / mean(diag K)"


def test_a_stopped_machine_without_planes_is_not_marked_on_the_converged_path(make_run):
    path = [{"ridge": ridge, "val": {"accuracy": 0.6}} for ridge in (1.0, 0.1)]
    run, chosen = with_fit(read_run(make_run()), "entk_early_stopping", ridge_path=path, curve=None)
    drawn = ridge_figure(run, chosen)
    assert len(drawn.figure.axes[0].lines) == 1
    assert drawn.caption == ""


def test_captions_tell_the_rule_of_one_standard_error_only_where_it_chose(make_run):
    run = read_run(make_run(curves=True))
    assert (
        "the largest ridge within one standard error"
        in ridge_figure(run, method(run, "entk")).caption
    )
    for figure in (
        ridge_figure(run, method(run, "linear_probe")),
        iterations_figure(run, method(run, "finetune")),
    ):
        assert "scored best" in figure.caption
        assert "standard error" not in figure.caption
