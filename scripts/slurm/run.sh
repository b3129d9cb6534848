#!/usr/bin/env bash
# Inside a Slurm job: train a run, or go on with it, then test it. Called by the .sbatch files in this folder.
#   run.sh CONFIG RUN_DIR [flags of fit]
set -euo pipefail
config=$1 run_dir=$2
tasks=$((SLURM_NTASKS / SLURM_JOB_NUM_NODES))
# RUN_DIR after the flags: a further --config would name a run_dir of its own.
bash scripts/slurm/resumable.sh fit --config "$config" "${@:3}" --run_dir "$run_dir" --ckpt_path last \
  --trainer.num_nodes "$SLURM_JOB_NUM_NODES" --trainer.devices "$tasks"
# In a test there is nothing to save: it is short, and finishes.
srun --nodes=1 --ntasks=1 bash -c 'trap "" USR1; exec "$@"' _ "${PYTHON:-.venv/bin/python}" -m kd_lightning test \
  --ckpt_path "$run_dir" --trainer.devices 1 --trainer.num_nodes 1
