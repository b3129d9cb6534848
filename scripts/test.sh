#!/usr/bin/env bash
# Make .venv, install what the tests need, run them. Further arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/install.sh dev
exec .venv/bin/python -m pytest "$@"
