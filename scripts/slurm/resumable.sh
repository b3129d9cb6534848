#!/usr/bin/env bash
# Inside a Slurm job: a command of kd_lightning that resumes where it was stopped. Called by the scripts in this folder.
#   resumable.sh fit|study [flags]
# The scheduler's SIGUSR1 before the time limit makes it save and end with 75, and the job is queued again; on preemption
# (SIGTERM) it saves and ends with 143, and Slurm queues it again by itself where the job says --requeue.
set -uo pipefail
# Since Slurm 22.05 srun no longer takes this over from sbatch.
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
srun --kill-on-bad-exit=0 "${PYTHON:-.venv/bin/python}" -m kd_lightning "$@"
code=$?
job=$SLURM_JOB_ID
# The number of an array's last task is that of the whole array, too.
[ -z "${SLURM_ARRAY_JOB_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
if [ "$code" -eq 75 ] || [ "$code" -eq 138 ]; then # 138: the signal came before Python had started
  scontrol requeue "$job"
fi
exit "$code"
