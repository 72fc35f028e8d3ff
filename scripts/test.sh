#!/bin/sh
# Set up entk with its development tools, then lint, check types and imports, and run the tests.
# Arguments go to pytest:  sh scripts/test.sh -m slow   (the tests that take minutes)
# Two processes of one computing thread each, files whole; -n 0 for one process.
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh dev
bin="${ENTK_VENV:-.venv}/bin"
"$bin/ruff" format --check .
"$bin/ruff" check .
"$bin/mypy"
"$bin/lint-imports"
export OMP_NUM_THREADS=1
exec "$bin/pytest" -n 2 --dist loadfile "$@"
