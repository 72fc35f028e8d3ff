#!/bin/sh
# Make the environment in .venv (or $ENTK_VENV) and install entk with the extras named.
#   usage: sh scripts/setup.sh EXTRAS     for example: sh scripts/setup.sh cluster
# Safe to repeat: nothing is installed again while pyproject.toml and constraints.txt stay as they are.
set -eu
cd "$(dirname "$0")/.."
extras="${1:-cluster}"
venv="${ENTK_VENV:-.venv}"

python=""
for candidate in "${PYTHON:-python3}" python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python="$candidate"
        break
    fi
done
if [ -z "$python" ]; then
    echo "setup: Python 3.11 or newer is needed, found: $(python3 --version 2>&1). Set PYTHON=/path/to/python3." >&2
    exit 2
fi

wanted="$(cat pyproject.toml constraints.txt scripts/setup.sh | cksum)"
covering="$extras"
[ "$extras" != cluster ] || covering="cluster dev" # `dev` holds it.
for installed in $covering; do
    stamp="$venv/.installed-$installed"
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        exit 0
    fi
done

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check -q "$@"; }

# Without a GPU the CPU build of torch saves gigabytes. It is on PyTorch's own index, or on the
# configured one; where neither has it, the default build works as well.
torch_version="$(sed -n 's/^torch==//p' constraints.txt)"
if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
    echo "setup: installing torch $torch_version into $venv (this can take a few minutes)"
    if command -v nvidia-smi >/dev/null 2>&1; then
        pip install "torch==$torch_version" -c constraints.txt
    else
        pip install "torch==$torch_version+cpu" -c constraints.txt 2>/dev/null ||
            pip install "torch==$torch_version+cpu" --retries 0 --timeout 15 \
                --extra-index-url https://download.pytorch.org/whl/cpu -c constraints.txt 2>/dev/null ||
            pip install "torch==$torch_version" -c constraints.txt
    fi
fi
echo "setup: installing entk[$extras] into $venv"
pip install -c constraints.txt -e ".[$extras]"
echo "$wanted" >"$venv/.installed-$extras"
