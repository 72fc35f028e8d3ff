#!/bin/sh
# Set up entk and run the main job on scikit-learn's digits: about two minutes of computing on 2 cores.
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh cluster
exec "${ENTK_VENV:-.venv}/bin/entk" run configs/quickstart.yaml "$@"
