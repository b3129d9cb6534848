"""python -m kd_lightning."""

import gc
import sys

from kd_lightning.training.signals import end_with_launcher, exit_on_signals, ignore_signals


def run() -> None:
    """Run the command line and end the process with its exit code."""
    end_with_launcher()
    exit_on_signals()
    from kd_lightning.cli.command_line import main  # takes seconds, in which a signal may come
    from kd_lightning.cli.lossy_output import lossy

    gc.freeze()  # what is imported stays; each collection would take 0.2 s to look at it again
    sys.stderr = lossy(sys.stderr)  # a line that can't be written must not change the exit code
    code = main()
    ignore_signals()
    sys.exit(code)


if __name__ == "__main__":
    run()
