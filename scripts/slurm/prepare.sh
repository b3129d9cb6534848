#!/usr/bin/env bash
# On the login node, where the compute nodes have no internet: download the data, compute the soft targets where they
# will be stored and the teachers are there, do one step, write no run.
#   bash scripts/slurm/prepare.sh CONFIG [flags of fit]
set -euo pipefail
"${PYTHON:-.venv/bin/python}" -m kd_lightning fit --config "$1" --prepare true "${@:2}"
