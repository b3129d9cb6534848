"""The command line."""

from kd_lightning.cli.command_line import main

__all__ = [
    "main",
]
