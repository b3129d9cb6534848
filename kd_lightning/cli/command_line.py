"""The command line: a subcommand is run, and a failure ends in one line and an exit code."""

import gc
import os
import select
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import import_module

import torch
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.multiprocessing.spawn import ProcessException, ProcessExitedException

from kd_lightning.cli.arguments import OTHER_COMMANDS, PROG, refuse_unknown_subcommand, resume_command, typed_command
from kd_lightning.cli.distill_cli import DistillCLI
from kd_lightning.cli.log_lines import silence_known_warnings, wrap_log_lines
from kd_lightning.cli.messages import accept_any_text, error_line, refuse_undecoded
from kd_lightning.cli.own_code import DEBUG_VARIABLE, raised_last
from kd_lightning.runs.config_files import check_config_files
from kd_lightning.runs.resume import with_config_of_run, with_data_named
from kd_lightning.runs.texts import say
from kd_lightning.training.signals import EXIT_CODES, Stopped, StopSignals, end_with_launcher, let_launcher_end_first
from kd_lightning.training.trial import TrialDone


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line; a failure that a user can cause ends in one line on stderr.

    Args:
        args: The arguments after the program's name; those of this process by default.

    Returns:
        The exit code: 0 for success, 1 for an error, and the code in EXIT_CODES after a signal.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    _flush_subnormal_numbers()
    signals = StopSignals()
    end_with_launcher()
    silence_known_warnings()
    wrap_log_lines()
    accept_any_text()
    try:
        refuse_unknown_subcommand(arguments)
        if arguments and arguments[0] in OTHER_COMMANDS:
            module, _, function = OTHER_COMMANDS[arguments[0]].partition(":")
            with signals.installed():
                getattr(import_module(module), function)(arguments[1:])
                sys.stdout.flush()
            return 0
        refuse_undecoded(arguments)
        with signals.installed(), ExitStack() as exit_stack:
            arguments = with_config_of_run(arguments)
            check_config_files(arguments)
            typed = typed_command() if args is None else [*PROG.split(), *args]
            cli = DistillCLI(with_data_named(arguments), exit_stack, signals, typed)
    except ProcessException as error:  # of a process that trained, under ddp_fork and ddp_spawn
        stopped_by = _signal_of_ranks(error, signals)
        if stopped_by is not None:
            return _stopped(stopped_by)
        if raised_last(str(error))[0] == TrialDone.__name__:
            return 0
        return _failed(error)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return EXIT_CODES[signal.SIGINT]
    except SIGTERMException:  # Lightning lets it end the process with 0
        return EXIT_CODES[signal.SIGTERM]
    except Stopped as stopped:
        code = _stopped(stopped.signal, stopped.saved)
        if stopped.saved and args is None:  # a study knows better than its run what comes next
            rank_zero_only(print)(f"next: {resume_command(typed_command())}", file=sys.stderr)
        return code
    except BrokenPipeError as error:
        return 128 + signal.SIGPIPE if _reader_is_gone() else _failed(error)
    except SystemExit as stop:  # --help and --print_config end so, and Lightning after Ctrl-C
        if isinstance(stop.__context__, KeyboardInterrupt):
            return EXIT_CODES[signal.SIGINT]
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:
        return _failed(error)
    finally:
        if args is not None:
            gc.collect()  # a trainer has reference cycles, which keep images and optimizer in memory
    return EXIT_CODES[signal.SIGTERM] if cli.trainer.received_sigterm else 0


def _flush_subnormal_numbers() -> None:
    """Have the processor take numbers below 1.2e-38 for 0, in this thread and those that it starts.

    Adam's mean gradients of inputs that are always 0, such as a digit's border, shrink to such numbers and stay there.
    Arithmetic with them takes many times as long: the fourth epoch of a 2x800 net took a third longer, see
    docs/benchmark.md.
    """
    torch.set_flush_denormal(True)


def _reader_is_gone() -> bool:
    """Whether what reads standard output has enough, as in `options | head`; then what is left to print is dropped."""
    output = sys.__stdout__
    if output is None or sys.stdout is not output:
        return False
    poll = select.poll()
    poll.register(output.fileno(), 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123  # or Python complains when it ends
        os.dup2(nowhere.fileno(), output.fileno())
    return True


def _signal_of_ranks(error: ProcessException, signals: StopSignals) -> signal.Signals | None:
    """The signal that ended the ranks; None where they failed."""
    if not isinstance(error, ProcessExitedException):
        return None
    by_code = {code: signum for signum, code in EXIT_CODES.items()}
    return signal.Signals(signals.received) if signals.received else by_code.get(error.exit_code)


def _stopped(signum: signal.Signals, saved: str = "") -> int:
    """Print which signal ended the run and what was saved, and return the exit code."""
    say(f"stopped by {signum.name}{': ' * bool(saved)}{saved}", sys.stderr)
    let_launcher_end_first()
    return EXIT_CODES[signum]


def _failed(error: Exception) -> int:
    """Print the error in one line and return the exit code. An error in this program itself is raised again."""
    line = error_line(error)
    if line is None:
        raise error
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
    say(f"error: {line}", sys.stderr)
    return 1
