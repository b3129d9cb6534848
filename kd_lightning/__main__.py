"""python -m kd_lightning."""

import sys

from kd_lightning.cli.command_line import main


def run() -> None:
    """Run the command line and end the process with its exit code."""
    sys.exit(main())


if __name__ == "__main__":
    run()
