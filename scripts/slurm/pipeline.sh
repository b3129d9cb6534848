#!/usr/bin/env bash
# Everything in order, each step after the one before has succeeded: teachers, store, students, report.
#   bash scripts/slurm/pipeline.sh TEACHER_CONFIG STUDENT_CONFIG ROOT [teachers] [students] [options of sbatch]
# Leaves ROOT/teacher-*, ROOT/student-* and ROOT/report.html; prints the last job's number.
set -euo pipefail
teacher=$1 student=$2 root=$3 teachers=${4:-3} students=${5:-3}
here=$(dirname "$0")
submit() { sbatch --parsable --kill-on-invalid-dep=yes "${options[@]}" "$@"; }
options=("${@:6}")
from_teachers=(--model.teachers "$root/teacher-*")
first=$(submit --array="0-$((teachers - 1))" "$here/teachers.sbatch" "$teacher" "$root/teacher")
store=$(submit --dependency="afterok:$first" --array="0-$((teachers - 1))" "$here/prepare.sbatch" "$student" \
  --model.teachers "$root/teacher-%a")
last=$(submit --dependency="afterok:$store" --array="0-$((students - 1))" \
  "$here/teachers.sbatch" "$student" "$root/student" "${from_teachers[@]}")
submit --dependency="afterok:$last" --job-name=kd-report --output=%x-%j.out \
  --wrap="${PYTHON:-.venv/bin/python} -m kd_lightning report $(printf %q "$root")"
