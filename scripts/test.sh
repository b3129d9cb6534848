#!/usr/bin/env bash
# Make .venv, install what the tests need, run them: the default ones on two cores, with arguments those that they choose.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/install.sh dev
if [ $# -eq 0 ]; then
  export OMP_NUM_THREADS=1 # two processes with a thread for each core would wait for each other
  set -- -n 2 --dist loadfile
fi
exec .venv/bin/python -m pytest "$@"
