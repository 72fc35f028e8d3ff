from pathlib import Path

from pipeline.registry import BENCHMARKS, RunConfig
from pipeline.report.config_reference import reference_page

ROOT = Path(__file__).parents[2]


def test_the_page_is_that_of_the_schema():
    page = reference_page(RunConfig.model_json_schema())
    assert (ROOT / "configs/REFERENCE.md").read_text() == page, (
        "stale: python scripts/config_reference.py"
    )


def test_every_key_has_a_meaning_and_every_kind_a_section():
    page = reference_page(RunConfig.model_json_schema())
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.endswith("|  |")] == []
    assert all(f"## `benchmark`, kind `{kind}`" in page for kind in BENCHMARKS)


def test_a_key_says_what_it_takes_and_what_stands_there_without_it():
    schema = {
        "$defs": {"Inner": {"description": "Parts.", "properties": {}}},
        "properties": {
            "n": {"type": "integer", "minimum": 1, "default": 3, "description": "Rows.\nAll."},
            "way": {"enum": ["a", "b"], "description": "Which."},
            "inner": {"anyOf": [{"$ref": "#/$defs/Inner"}, {"type": "null"}], "default": None},
        },
        "required": ["way"],
    }
    page = reference_page(schema)
    assert "| `n` | whole number, ≥ 1 | `3` | Rows. All. |" in page
    assert "| `way` | `a`, `b` |  | Which. |" in page
    assert "| `inner` | mapping, below or null | `null` | Parts. |" in page
    assert page.endswith("## `inner`\n\nParts.\n\nNo keys of its own.\n")
