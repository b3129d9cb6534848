"""The help texts: subcommands, and the arguments in addition to Lightning's own."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from kd_lightning.cli.own_code import DEBUG_VARIABLE

PROG = "python -m kd_lightning"

# Arguments of every subcommand in addition to Lightning's own: default and meaning.
ARGUMENTS: dict[str, tuple[str | bool | float, str]] = {
    "run_dir": ("runs/unnamed/run", "Folder of the run: configuration, checkpoints, event files, metrics."),
    "overwrite": (False, "fit: start over in a folder that holds a run already; the old run is deleted."),
    "save_every": (60.0, "fit: seconds between two writes of last.ckpt, from which a killed run resumes, >= 0."),
    "dry_run": (False, "fit: build everything, do one step, print what would be done; download and write nothing."),
    "prepare": (False, "fit: download data, store the teachers' logits, and stop before the first step; write no run."),
    "pictures_every": (0, "fit: epochs between two sets of pictures in TensorBoard, >= 0; 0 for the last only."),
}

# Help of each subcommand. --help would print only the first line of Lightning's docstrings, a part of a sentence.
SUBCOMMANDS = {
    "fit": "Train a teacher or a student, or resume a run with --ckpt_path last.",
    "validate": "Measure a checkpoint's loss and accuracy on the validation split.",
    "test": "Measure a checkpoint on the test set and write metrics.json into its run.",
    "predict": "Classify the test set, or image files of your own, and write predictions.csv.",
}

# Further subcommands: "module:function", imported only when it is used: nothing else needs its packages.
OTHER_COMMANDS = {
    "inspect": "kd_lightning.cli.inspect:run_inspect",
    "study": "kd_lightning.cli.study:run_study",
    "report": "kd_lightning.reports.page:run_report",
    "export": "kd_lightning.export:run_export",
    "options": "kd_lightning.cli.options:run_options",
    "completion": "kd_lightning.cli.completion:run_completion",
}
# What --help says of each.
OTHER_COMMANDS_HELP = {
    "inspect": "Show what teachers know before a student is trained.",
    "study": "Run the rows of a table over several seeds, or ask whether distillation helps.",
    "report": "Compare runs: a table, and a page with curves and pictures.",
    "export": "Take the student out as ONNX, pt2 or safetensors, and compare it.",
    "options": "List this package's own options with types and defaults.",
    "completion": "Print a script that completes options in a shell.",
}
OPTIONS_COMMAND = f"{PROG} options"
OPTIONS_POINTER = f"This package's own options: {OPTIONS_COMMAND}"

DESCRIPTION = f"""Train teachers, distil a student, from YAML files.

The way through: fit a teacher, fit a student against it, test both, report, export; or all of it with study. What goes
wrong is said in one line; with {DEBUG_VARIABLE}=1 in the environment the whole traceback comes before it."""


def typed_command() -> list[str]:
    """The command line of this process, word by word: with its interpreter, or as the installed command."""
    words = list(sys.orig_argv)
    script = len(words) > 1 and Path(words[1]).name == "kd_lightning"
    return ["kd_lightning", *words[2:]] if script else words


def typed_program(words: Sequence[str]) -> str:
    """The program as it was typed, such as `.venv/bin/python -m kd_lightning`; PROG where it is unknown.

    Args:
        words: The command line, word by word.
    """
    if words and words[0] == "kd_lightning":
        return words[0]
    ends = (place for place in range(2, len(words) + 1) if list(words[place - 2 : place]) == ["-m", "kd_lightning"])
    end = next(ends, None)
    return PROG if end is None else shlex.join(words[:end])


def resume_command(words: Sequence[str]) -> str:
    """The command that resumes a fit.

    Args:
        words: The fit's command line, word by word.
    """
    replaced = ("--ckpt_path", "--overwrite")
    pairs = zip(["", *words], words, strict=False)
    kept = [word for before, word in pairs if before not in replaced and word.partition("=")[0] not in replaced]
    return shlex.join([*kept, "--ckpt_path", "last"])


def refuse_unknown_subcommand(arguments: Sequence[str]) -> None:
    """Refuse a first argument that is not a subcommand.

    Raises:
        ValueError: If there is none, or it is a word but not a subcommand.
    """
    subcommands = (*SUBCOMMANDS, *OTHER_COMMANDS)
    if not arguments:
        raise ValueError(f"no subcommand; expected one of {', '.join(subcommands)}; {PROG} --help describes them")
    if not arguments[0].startswith("-") and arguments[0] not in subcommands:
        raise ValueError(f"no subcommand {arguments[0]}; expected one of {', '.join(subcommands)}")
