"""Write configs/REPRODUCTION.md from configs/reproduction/*.yaml and the recorded results.

    python scripts/reproduction.py

A row is a block in the paper's file; `pipeline/report/reproduction.py` says what is in it.
"""

from pathlib import Path

from pipeline.report.reproduction import load_papers, reproduction_page

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    page = ROOT / "configs/REPRODUCTION.md"
    page.write_text(reproduction_page(load_papers(ROOT / "configs/reproduction"), ROOT))
    print(page)


if __name__ == "__main__":
    main()
