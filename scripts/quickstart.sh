#!/usr/bin/env bash
# Make .venv, install, train teachers and students on real digits, print the comparison. Run it again: it goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/install.sh embedded
exec .venv/bin/python -m scripts.quickstart
