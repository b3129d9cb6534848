#!/usr/bin/env bash
# Inside a Slurm job: train a run, or go on with it, then test it. Called by the .sbatch files in this folder.
#   run.sh CONFIG RUN_DIR [flags of fit]
# The scheduler's SIGUSR1 before the time limit makes the run save and end with 75, and the job is queued again; on
# preemption (SIGTERM) it saves and ends with 143, and Slurm queues it again by itself where the job says --requeue.
set -uo pipefail
config=$1 run_dir=$2
python=${PYTHON:-.venv/bin/python}
# Since Slurm 22.05 srun no longer takes this over from sbatch.
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
tasks=$((SLURM_NTASKS / SLURM_JOB_NUM_NODES))
srun --kill-on-bad-exit=0 "$python" -m kd_lightning fit --config "$config" --run_dir "$run_dir" --ckpt_path last \
  --trainer.num_nodes "$SLURM_JOB_NUM_NODES" --trainer.devices "$tasks" "${@:3}"
code=$?
if [ "$code" -eq 75 ] || [ "$code" -eq 138 ]; then # 138: the signal came before Python had started
  scontrol requeue "$SLURM_JOB_ID"
fi
[ "$code" -eq 0 ] || exit "$code"
# In a test there is nothing to save: it is short, and finishes.
srun --nodes=1 --ntasks=1 bash -c 'trap "" USR1; exec "$@"' _ \
  "$python" -m kd_lightning test --ckpt_path "$run_dir" --trainer.devices 1 --trainer.num_nodes 1
