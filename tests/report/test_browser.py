"""The page in a real browser; on Debian: apt-get install chromium, pytest tests/report."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.report.build import build_report, compare

LISTENER = """<script>
window.failures = [];
window.addEventListener("error", e => failures.push(e.message || e.target.outerHTML), true);
for (const level of ["error", "warn"])
  console[level] = (...words) => failures.push(words.join(" "));
</script>"""

PROBE = """<script>
window.addEventListener("load", () => {
  const box = e => {
    const b = e.getBoundingClientRect();
    return [b.left, b.right, b.width, b.height];
  };
  const all = selector => [...document.querySelectorAll(selector)];
  const facts = {
    page: document.documentElement.scrollWidth, window: window.innerWidth, errors: failures,
    figures: all("figure svg").map(
      s => [...box(s), s.querySelectorAll("path, image, text").length]),
    images: all("img").map(i => i.naturalWidth),
    texts: all("figure svg text").map(box),
    outside: performance.getEntriesByType("resource").map(r => r.name)
      .filter(name => !name.startsWith("data:")),
    paper: getComputedStyle(document.body).backgroundColor,
  };
  document.body.innerHTML = "<pre id=facts>" + JSON.stringify(facts) + "</pre>";
});
</script>"""

PHONE, DESKTOP = 500, 1280
"""Headless Chromium has no window narrower than 500 points; phones are framed in ``narrow``."""


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium to open the page in; on Debian: apt-get install chromium")
    return found


def opened(chromium: str, page: Path, profile: Path, width: int, *flags: str) -> dict:
    """What a browser of a width in points finds in a page."""
    probed = page.with_name("probed.html")
    probed.write_text(page.read_text().replace("<head>", f"<head>{LISTENER}") + PROBE)
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={profile}", f"--window-size={width},900", *flags, "--dump-dom"]
    done = subprocess.run(
        [*command, probed.as_uri()], capture_output=True, text=True, timeout=90, check=True
    )
    return json.loads(re.search(r'<pre id="facts">(.*?)</pre>', done.stdout)[1])


def narrow(page: Path) -> Path:
    """The page as a phone of 360 points shows it."""
    framed = page.with_name("narrow.html")
    style = "<style>html { width: 360px; }</style></head>"
    framed.write_text(page.read_text().replace("</head>", style))
    return framed


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_a_browser_draws_every_figure_and_nothing_is_wider_than_its_window(
    chromium, make_run, tmp_path, width
):
    page = build_report(make_run(benchmark="living17", name="living17", curves=True))
    facts = opened(chromium, page, tmp_path / "profile", width)
    assert facts["errors"] == []
    assert facts["outside"] == []
    assert facts["page"] <= facts["window"]
    assert len(facts["figures"]) == page.read_text().count("<figure")
    assert all(w > 200 and h > 120 and marks > 10 for _, _, w, h, marks in facts["figures"])
    assert len(facts["images"]) == 8
    assert all(facts["images"])
    assert all(left >= -1 and right <= facts["window"] + 1 for left, right, *_ in facts["texts"])


def test_nothing_is_wider_than_a_phone(chromium, make_run, tmp_path):
    page = narrow(build_report(make_run(name="a_rather_long_name_of_a_run", curves=True)))
    facts = opened(chromium, page, tmp_path / "profile", PHONE)
    assert facts["page"] <= facts["window"]
    assert all(right <= 361 for _, right, *_ in facts["figures"] + facts["texts"])


def test_the_page_is_dark_where_the_reader_wants_it_dark(chromium, make_run, tmp_path):
    page = build_report(make_run())
    flags = ("--blink-settings=preferredColorScheme=0",)
    dark = opened(chromium, page, tmp_path / "dark", DESKTOP, *flags)
    light = opened(chromium, page, tmp_path / "light", DESKTOP)
    assert (dark["paper"], light["paper"]) == ("rgb(20, 23, 26)", "rgb(255, 255, 255)")


def test_the_comparison_of_runs_opens_without_an_error(chromium, make_run, tmp_path):
    folders = [make_run("a", name="seed_0"), make_run("b", name="seed_1")]
    facts = opened(chromium, compare(folders, tmp_path / "all.html"), tmp_path / "profile", PHONE)
    assert facts["errors"] == []
    assert len(facts["figures"]) == 1
    assert facts["page"] <= facts["window"]
