"""Completion for shells: a script with all options of the subcommands and of this package's modules."""

import argparse
import inspect

import jsonargparse
from lightning.pytorch.cli import ArgsType, LightningArgumentParser

from kd_lightning.cli.arguments import OTHER_COMMANDS_HELP, SUBCOMMANDS
from kd_lightning.cli.distill_cli import DistillCLI
from kd_lightning.data.mnist import MNISTDataModule
from kd_lightning.modules.distill import DistillModule
from kd_lightning.modules.lightning_internals import options_of_subcommands
from kd_lightning.modules.teacher import TeacherModule

COMMAND = "kd_lightning"
FILES = {"config", "ckpt_path"}  # options that take a file
# The options of a class depend on which class is chosen; those of these classes are always offered.
CLASSES = {"model": (DistillModule, TeacherModule), "data": (MNISTDataModule,)}


class _Built(Exception):  # noqa: N818  # carries the parser out
    def __init__(self, parser: LightningArgumentParser) -> None:
        super().__init__()
        self.parser = parser


class _ParserOnly(DistillCLI):
    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        raise _Built(parser)


def run_completion(args: list[str]) -> None:
    """Print a completion script.

    Args:
        args: The arguments after `completion`.

    Raises:
        ModuleNotFoundError: If shtab, which writes such scripts, is missing.
    """
    jsonargparse.auto_cli(_run, args=args, prog="python -m kd_lightning completion", exit_on_error=False)


def _run(shell: str) -> None:
    """Print a script that completes the options of the command kd_lightning.

    Args:
        shell: bash, zsh, tcsh or another shell that shtab supports.
    """
    try:
        import shtab  # nothing else needs it
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("completion scripts are written by shtab; pip install shtab") from error

    if shell not in shtab.SUPPORTED_SHELLS:
        raise ValueError(f"no completion for {shell}; expected one of {', '.join(shtab.SUPPORTED_SHELLS)}")
    plain = argparse.ArgumentParser(COMMAND)
    subcommands = plain.add_subparsers()
    options = _options_of_subcommands()
    for name, text in SUBCOMMANDS.items():
        subcommand = subcommands.add_parser(name, help=text, add_help=False)
        for option in sorted(set(options[name])):
            action = subcommand.add_argument(f"--{option}")
            if option in FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]  # where shtab looks
    for name, text in OTHER_COMMANDS_HELP.items():
        subcommands.add_parser(name, help=text)  # shtab leaves out what has no help
    print(shtab.complete(plain, shell))


def _options_of_subcommands() -> dict[str, list[str]]:
    """Long options of each subcommand, without the dashes, and those of this package's classes."""
    of_classes = [f"{key}.{name}" for key, classes in CLASSES.items() for each in classes for name in _arguments(each)]
    try:
        _ParserOnly([])
    except _Built as built:
        listed = options_of_subcommands(built.parser)
        return {name: [*(option[2:] for option in options), *of_classes] for name, options in listed.items()}
    raise RuntimeError("the command line has no subcommands")


def _arguments(cls: type) -> list[str]:
    return list(inspect.signature(cls).parameters)
