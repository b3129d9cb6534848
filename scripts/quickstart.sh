#!/usr/bin/env bash
# Make .venv, install, train teachers and students on real digits, print the comparison: a first table with one seed,
# then all. Run it again: it goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/install.sh embedded,export
.venv/bin/python -m kd_lightning study configs/quickstart/study.yaml --rows plain distilled --seeds 1 --report false
exec .venv/bin/python -m kd_lightning study configs/quickstart/study.yaml
