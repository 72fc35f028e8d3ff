"""Write configs/REFERENCE.md, every key of a config, from the schema.

python scripts/config_reference.py
"""

from pathlib import Path

from pipeline.registry import RunConfig
from pipeline.report.config_reference import reference_page

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    page = ROOT / "configs/REFERENCE.md"
    page.write_text(reference_page(RunConfig.model_json_schema()))
    print(page)


if __name__ == "__main__":
    main()
