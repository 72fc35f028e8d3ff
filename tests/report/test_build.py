import csv
import re
import shutil
from html.parser import HTMLParser

import pytest

from pipeline.artefact import read_json, write_json
from pipeline.config import read_yaml, write_yaml
from pipeline.report.build import build_report, compare
from pipeline.report.kernel_figures import plane_figure
from pipeline.report.pair_figures import differences_figure
from pipeline.report.record import read_run
from pipeline.report.results import results_table
from pipeline.report.words import facts, headline
from pipeline.types import InputError

FIGURES = 12
"""Shift, differences, agreement, outside the span, 2 over iterations, 2 over ridge, plane,
spectrum, reliability, calibration."""

VOID = {"meta", "link", "br", "wbr", "img", "hr", "input"}


class Page(HTMLParser):
    """Tags, ids and text of a page; refuses tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.ids += [value for key, value in attributes if key == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list) -> None:
        self.ids += [value for key, value in attributes if key == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_table_figures_and_what_was_run_in_one_file(make_run):
    path = build_report(make_run(curves=True))
    assert path.name == "report.html"
    text = path.read_text()
    page = Page(text)
    assert page.count["svg"] == FIGURES
    assert len(page.ids) == len(set(page.ids))
    for words in (
        "64.4",
        "± 0.9",
        "n = 3,000",
        "+24.2",
        "converged in 412 iterations",
        "6 min 52 s",
    ):
        assert words in page.text
    assert "the head's own features are 0.4 %" in page.text
    assert "Network: it has seen the target labels" in page.text
    assert "kernel in memory" in page.text
    assert 'class="best">64.4' in text
    assert "What is missing" not in page.text
    outside = re.findall(r"""(?:src|href)\s*=\s*["'](?!#|data:)([^"']+)""", text)
    assert outside == []
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text


def test_equal_runs_give_equal_reports_byte_for_byte(make_run):
    folder = make_run(curves=True)
    first = build_report(folder).read_bytes()
    assert build_report(folder).read_bytes() == first


def test_markdown_has_one_cell_a_column_and_marks_the_best(make_run):
    folder = make_run(curves=True)
    build_report(folder)
    lines = (folder / "report.md").read_text().splitlines()
    table = lines[lines.index("## Results") + 2 :]
    table = table[: table.index("")]
    assert len({line.count("|") for line in table}) == 1
    assert any("**64.4 ± 0.9**" in line for line in table)
    for link in re.findall(r"\]\((figures/[^)]+)\)", "\n".join(lines)):
        assert (folder / link).is_file()
        assert (folder / link).with_suffix(".png").is_file()


def test_mistakes_show_their_images_and_who_taught_them(make_run):
    page = build_report(make_run(curves=True))
    text = page.read_text()
    assert text.count('src="data:image/png;base64,') == 1 + 1 + 2 * 3
    words = Page(text).text
    for part in ("The most confident mistakes", "99 %", "is flowers (< 1 %)", "+0.021", "−0.001"):
        assert part in words
    assert words.count("from all samples") == 1, "older runs have no sums"
    assert "of +2,034 and −2,033 from all samples" in words


def test_names_of_classes_break_at_their_underscores_and_nowhere_else(make_run):
    folder = make_run(curves=True)
    path = folder / "mistakes" / "mistakes.json"
    path.write_text(path.read_text().replace("flowers", "<b>_plants"))
    assert "is &lt;b&gt;_<wbr>plants <" in build_report(folder).read_text()


def test_tables_are_there_as_csv_and_latex(make_run):
    folder = make_run(curves=True)
    build_report(folder)
    rows = list(csv.DictReader((folder / "tables" / "metrics.csv").open()))
    (row,) = (
        r
        for r in rows
        if (r["method"], r["split"], r["metric"]) == ("entk", "ood_test", "accuracy")
    )
    assert [float(row[key]) for key in ("value", "low", "n")] == pytest.approx([0.376, 0.359, 3000])
    lines = (folder / "tables" / "results.tex").read_text().splitlines()
    assert lines[0] == r"\begin{tabular}{lrr}"
    assert r"eNTK, converged & \textbf{64.4 $\pm$ 0.9} & 37.6 $\pm$ 0.9 \\" in lines
    assert len({line.count("&") for line in lines if "&" in line}) == 1
    pairs = list(csv.DictReader((folder / "tables" / "differences.csv").open()))
    assert len(pairs) == 3 * 10
    stages = list(csv.DictReader((folder / "tables" / "stages.csv").open()))
    assert stages[0]["bytes"] == "2600000000"


def test_the_lead_of_the_kernel_is_drawn_from_either_order_of_a_pair(make_run):
    run = read_run(make_run())
    axes = differences_figure(run).figure.axes[0]
    drawn = {
        round(float(line.get_xdata()[0]), 6) for line in axes.lines if len(line.get_xdata()) == 1
    }
    assert round(100 * (0.644 - 0.402), 6) in drawn
    assert round(100 * (0.644 - 0.642), 6) in drawn


def test_every_ridge_of_the_plane_has_its_place(make_run):
    run = read_run(make_run(curves=True))
    (method,) = (m for m in run.methods if "planes" in m.fit)
    drawn = plane_figure(run, method).figure.axes[0].collections[0]
    corners = drawn.get_coordinates()[:, 0, 1]
    ridges = method.fit["planes"]["ridges"]
    assert all(
        above > ridge > below
        for above, ridge, below in zip(corners, ridges, corners[1:], strict=False)
    )


def test_what_a_finished_evaluation_lacks_is_named(make_run):
    folder = make_run()
    shutil.rmtree(folder / "comparisons")
    text = Page(build_report(folder).read_text()).text
    assert "comparisons has not run: no intervals" in text


def test_published_rows_stand_beside_living17_and_nowhere_else(make_run):
    living = build_report(make_run("a", benchmark="living17")).read_text()
    other = build_report(make_run("b")).read_text()
    assert "97.4" in living
    assert "published (poster)" in living
    assert "published (poster)" not in other


def test_the_selection_on_test_data_is_printed_as_such(make_run):
    folder = make_run()
    metrics = read_json(folder / "metrics.json")
    metrics["selection"]["split"] = "id_test"
    write_json(folder / "metrics.json", metrics)
    assert "optimistic" in build_report(folder).read_text()


def test_a_half_finished_run_says_which_cells_are_missing_and_why(make_run):
    folder = make_run()
    metrics = read_json(folder / "metrics.json")
    metrics["methods"]["finetune"] = {
        "selected": None,
        "splits": {},
        "missing": "every learning rate diverged",
    }
    del metrics["methods"]["scratch"]
    del metrics["methods"]["linear_probe"]["splits"]["ood_test"]
    write_json(folder / "metrics.json", metrics)
    shutil.rmtree(folder / "fit" / "scratch")
    (folder / "timing.json").unlink()
    text = Page(build_report(folder).read_text()).text
    for sentence in (
        "Fine-tuning: every learning rate diverged.",
        "From scratch: not run yet.",
        "Linear probing: no predictions on OOD test.",
        "timing.json is not there: no stage has finished.",
    ):
        assert sentence in text
    assert not re.search(r"\bnan\b", text, flags=re.IGNORECASE)


def test_a_run_without_any_metrics_still_gets_its_report(make_run):
    folder = make_run()
    (folder / "metrics.json").unlink()
    text = Page(build_report(folder).read_text()).text
    assert "evaluation has not run" in text
    assert "No method has been evaluated yet" in text


def test_a_folder_with_a_config_alone_gets_its_report(make_run, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(make_run() / "config.yaml", alone)
    text = Page(build_report(alone).read_text()).text
    for file in ("metrics.json", "timing.json", "versions.json"):
        assert f"{file} is not there" in text


def test_the_time_of_a_variants_own_kernel_is_a_row_before_the_variant(make_run):
    folder = make_run()
    config = read_yaml(folder / "config.yaml") | {"variants": {"centred": {}}}
    write_yaml(folder / "config.yaml", config)
    timing = read_json(folder / "timing.json") | {"centred": {"seconds": 0.2}, "last": {}}
    write_json(folder / "timing.json", timing)
    for variant, member in (("centred", "0"), ("centred", "head_1"), ("of_before", "0")):
        own = {"kernel": {"seconds": 4.6}}
        write_json(folder / "variants" / variant / member / "timing.json", own)
    assert [*read_run(folder).timing][-4:] == [
        "centred: kernel",
        "centred head_1: kernel",
        "centred",
        "last",
    ]


def test_the_moment_and_the_commit_of_a_run_stand_in_its_facts(make_run):
    folder = make_run()
    versions = read_json(folder / "versions.json")
    stamps = {"started": "2026-11-22T09:02:03Z", "commit": "ab12"}
    write_json(folder / "versions.json", versions | stamps)
    known = dict(facts(read_run(folder)))
    assert known["Started last"] == "2026-11-22 09:02:03 UTC"
    assert known["Code"] == "entk 0.1.0, git commit ab12"


def test_a_killed_run_shows_every_method_it_was_asked_for_and_the_splits_it_awaits(make_run):
    folder = make_run()
    (folder / "metrics.json").unlink()
    shutil.rmtree(folder / "fit")
    asked = read_yaml(folder / "config.yaml") | {"gp": {}, "variants": {"centred": {}}}
    write_yaml(folder / "config.yaml", asked)
    (folder / "manifests").mkdir()
    for split in ("train", "val", "id_test", "ood_blur"):
        (folder / "manifests" / f"{split}.csv").write_text("id,label,group,sha256\na,b,,c\n")
    run = read_run(folder)
    table = results_table(run)
    assert [column.split for column in table.columns] == ["id_test", "ood_blur"]
    assert {row.detail for row in table.rows} == {"not run yet"}
    assert {method.name for method in run.methods} == {
        "scratch", "linear_probe", "finetune", "entk", "entk_early_stopping", "entk_gp", "centred",
    }  # fmt: skip
    assert "Fine-tuning: not run yet." in run.missing


def test_what_only_an_earlier_config_asked_for_is_no_part_of_the_run(make_run):
    folder = make_run(curves=True)
    fit = read_json(folder / "fit/linear_probe/fit.json")
    write_json(folder / "fit/linear_probe_ridge/fit.json", fit)
    write_json(folder / "timing.json", {"kernel": {"seconds": 1}, "curves linear_probe_ridge": {}})
    asked = read_yaml(folder / "config.yaml") | {"kernel": {"sizes": []}, "outside_span": None}
    write_yaml(folder / "config.yaml", asked)
    run = read_run(folder)
    assert "linear_probe_ridge" not in {method.name for method in run.methods}
    assert run.columns == []
    assert list(run.timing) == ["kernel"]
    assert run.missing == []


def test_the_headline_says_how_its_method_was_chosen_and_how_sure_each_lead_is(make_run):
    folder = make_run()
    metrics = read_json(folder / "metrics.json")
    for method in metrics["methods"].values():
        method["splits"]["ood_blur"] = method["splits"]["ood_test"]
    write_json(folder / "metrics.json", metrics)
    compared = read_json(folder / "comparisons" / "comparisons.json")
    for pair in compared["splits"]["id_test"]["differences"]:
        if {pair["of"], pair["minus"]} == {"entk", "finetune"}:
            pair["interval"] = [-0.03, 0.01]
    write_json(folder / "comparisons" / "comparisons.json", compared)
    told = headline(read_run(folder))
    assert told["among"] == ["eNTK, early stopping", "eNTK, converged"]
    assert [tile["label"] for tile in told["tiles"]] == ["ID test", "OOD test", "OOD blur"]
    leads = {label: facts for label, *facts in told["tiles"][0]["against"]}
    assert leads["Fine-tuning"] == ["+1.7", "−1.0 to +3.0", False]
    assert leads["Linear probing"] == ["+24.2", "+23.0 to +25.4", True]
    page = build_report(folder).read_text()
    assert "the best on the validation split of eNTK, early stopping; eNTK, converged" in page
    assert 'class="unclear">+1.7' in page


def test_the_runs_own_variants_are_no_baselines(make_run):
    folder = make_run()
    asked = read_yaml(folder / "config.yaml") | {"variants": {"finetune": {}}}
    write_yaml(folder / "config.yaml", asked)
    labels = {
        label for tile in headline(read_run(folder))["tiles"] for label, *_ in tile["against"]
    }
    assert labels == {"Linear probing", "From scratch"}


def test_variants_stand_in_the_configs_order(make_run):
    folder = make_run()
    rows = {f"first_{n}": {"rows": n} for n in (250, 500, 1000)}
    write_yaml(folder / "config.yaml", read_yaml(folder / "config.yaml") | {"variants": rows})
    assert [method.name for method in read_run(folder).methods][-3:] == list(rows)


def test_an_unconverged_fit_stands_out(make_run):
    folder = make_run()
    path = folder / "fit" / "entk" / "fit.json"
    fit = read_json(path)
    fit["certificate"]["converged"] = False
    write_json(path, fit)
    assert 'class="warn">NOT CONVERGED' in build_report(folder).read_text()


def test_curves_computed_after_the_choice_are_read_from_their_own_artefact(make_run):
    folder = make_run(curves=True)
    fit = read_json(folder / "fit" / "entk_early_stopping" / "fit.json")
    curve = fit.pop("curve")
    write_json(folder / "fit" / "entk_early_stopping" / "fit.json", fit)
    build_report(folder)
    figure = folder / "figures" / "iterations-entk_early_stopping.svg"
    assert not figure.exists()
    drawn = folder / "curves" / "entk_early_stopping" / "curves.json"
    write_json(drawn, {"curve": curve})
    build_report(folder)
    assert figure.is_file()
    drawn.unlink()
    build_report(folder)
    assert not figure.exists(), "a figure that no artefact backs any more must go"


def test_names_from_a_config_cannot_break_the_page(make_run):
    text = build_report(make_run(name="<script>alert(1)</script> & co")).read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_regressions_are_reported_by_their_own_metrics(make_run):
    folder = make_run()
    metrics = read_json(folder / "metrics.json")
    metrics["selection"]["metric"] = "mse"
    for index, method in enumerate(metrics["methods"].values()):
        method["splits"] = {
            split: {
                "n": 50,
                "mse": 0.5 + index,
                "nll": 1.0,
                "coverage": 0.93,
                "stderr": 0.01,
                "auroc": 0.87,
            }
            for split in ("val", "id_test", "ood_test")
        }
    write_json(folder / "metrics.json", metrics)
    page = build_report(folder).read_text()
    text = Page(page).text
    assert "0.500 ± 0.010" in text
    assert "93.0" in text
    assert "0.870" in text
    assert '<a href="#calibration">Likelihood and coverage</a>' in page
    assert '<a href="#beyond">Beyond the error</a>' in page


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="is no run folder"):
        build_report(tmp_path)


def test_runs_are_compared_method_by_method(make_run, tmp_path):
    folders = [make_run("a", name="seed_0"), make_run("b", name="seed_1")]
    page = Page(compare(folders, tmp_path / "compare.html").read_text())
    assert page.count["svg"] == 1
    for suffix in (".csv", ".tex", ".svg", ".png"):
        assert (tmp_path / "compare.html").with_suffix(suffix).stat().st_size > 100
    assert page.text.index("seed_1 · learning rate") < page.text.index("seed_0 · logistic")


def test_runs_on_different_benchmarks_are_not_compared(make_run, tmp_path):
    folders = [make_run("a"), make_run("b", benchmark="living17")]
    with pytest.raises(InputError, match="share one benchmark"):
        compare(folders, tmp_path / "compare.html")
