"""Train three teachers, plain students and distilled students on real digits, test all, compare them.

Runs in one process, since importing torch and Lightning takes longer than some of the runs. What is done
already is skipped, and what was interrupted is resumed.
"""

import sys
from pathlib import Path

from kd_lightning.cli.command_line import main

RUNS = Path("runs/quickstart")
SEEDS = (0, 1, 2)
JITTER = ["--data.augment", "kd_lightning.Jitter"]

# Name of the runs, configuration, further flags.
EXPERIMENTS: list[tuple[str, str, list[str]]] = [
    ("teacher", "teacher", []),
    ("plain", "student", []),
    ("plain-jitter", "student", JITTER),
    ("distilled", "distill", []),
    ("distilled-jitter", "distill", JITTER),
]


def train_and_test(name: str, config: str, flags: list[str], seed: int) -> None:
    """Fit and test one run, as far as it is not done; end the program where that fails."""
    run = RUNS / f"{name}-{seed}"
    if (run / "metrics.json").is_file():
        print(f"{run} is done already")
        return
    fit = ["fit", "--config", f"configs/quickstart/{config}.yaml", *flags]
    fit += ["--run_dir", str(run), "--seed_everything", str(seed), "--ckpt_path", "last"]
    for command in (fit, ["test", "--ckpt_path", str(run / "checkpoints" / "last.ckpt")]):
        print(f"\n$ python -m kd_lightning {' '.join(command)}", flush=True)
        code = main(command)
        if code:
            sys.exit(code)


if __name__ == "__main__":
    for name, config, flags in EXPERIMENTS:
        for seed in SEEDS:
            train_and_test(name, config, flags, seed)
    print()
    code = main(["report", *(str(RUNS / f"{name}-{seed}") for name, _, _ in EXPERIMENTS for seed in SEEDS)])
    print(f"\npictures: open {RUNS / 'report.html'}\ncurves: .venv/bin/tensorboard --logdir runs")
    sys.exit(code)
