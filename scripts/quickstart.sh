#!/bin/sh
# Set up entk and run the main job on scikit-learn's digits: half a minute on 2 idle cores.
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh cluster
exec "${ENTK_VENV:-.venv}/bin/entk" run configs/quickstart.yaml "$@"
