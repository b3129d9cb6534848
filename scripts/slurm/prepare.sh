#!/usr/bin/env bash
# On the login node, where the compute nodes have no internet: download the data, compute the soft targets where the
# configuration has teachers, and try one step; write no run.
#   bash scripts/slurm/prepare.sh CONFIG [flags of fit]
set -euo pipefail
for way in prepare dry_run; do
  "${PYTHON:-.venv/bin/python}" -m kd_lightning fit --config "$1" "--$way" true "${@:2}"
done
