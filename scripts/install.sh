#!/usr/bin/env bash
# Make .venv where it is missing and install this checkout into it with the given extras.
#   bash scripts/install.sh embedded
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
"$python" -c 'import sys; sys.exit("Python 3.11 or newer is needed, got " + sys.version.split()[0] + "; set PYTHON to one" if sys.version_info < (3, 11) else 0)'
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --editable ".[$1]"
