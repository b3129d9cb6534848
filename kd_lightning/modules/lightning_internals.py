"""Every touch of a private part of Lightning or torch, each with its reason, its measured gain and a canary test.

A canary in tests/modules/test_lightning_internals.py fails when upstream no longer needs the touch.
"""

from argparse import SUPPRESS, Action, ArgumentParser
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
from lightning.pytorch.profilers import PassThroughProfiler


def built_by_command_line() -> bool:
    """Whether the module whose constructor runs is being built by LightningCLI, with plain values to save.

    LightningCLI tells it to `save_hyperparameters` by this context variable; there is no public way to ask.
    """
    return _given_hyperparameters.get() is not None


class QuickHookNames(LightningModule):
    """A LightningModule that notes the running hook's name at no cost.

    Lightning assigns `_current_fx_name` 44 times a step; bypassing `nn.Module.__setattr__` for it saves 0.1 ms a step.
    """

    def __setattr__(self, name: str, value: Any) -> None:  # Any: torch's own signature
        """Set an attribute, the hook's name without a look for parameters."""
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)


STEP_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)


class LeanCallback(Callback):
    """A callback that takes no time in steps in which it has nothing to do.

    Lightning calls every hook of every callback, empty ones too, and skips what can't be called. With fifteen callbacks
    and six hooks a step that saves 0.1 ms a step. A subclass that needs one of these hooks just defines it.
    """

    def __init_subclass__(cls) -> None:
        """Take away the hooks of a step that the class does not define."""
        for name in STEP_HOOKS:
            if getattr(cls, name) is getattr(Callback, name):
                setattr(cls, name, None)


def skip_cuda_graph_check(optimizer: torch.optim.Optimizer) -> None:
    """Spare an optimizer of CPU parameters a check that only concerns GPUs.

    Each `step()` checks for CUDA graph capture. With PYTORCH_NVML_BASED_CUDA_CHECK, which Lightning sets, that check
    looks for NVIDIA's library on disk: 0.1 ms a step.
    """
    for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):  # 2.9: cuda
        setattr(optimizer, name, _nothing_to_check)


def _nothing_to_check() -> None:
    """Stand in for the check."""


def resume_after_whole_epochs(trainer: Trainer) -> None:
    """Let a run with `max_steps` resume from an epoch's end as one without does.

    Lightning takes the epoch for an unfinished one there, so the resumed run leaves out the next epoch: it ends with
    fewer steps, or with other weights (`_FitLoop.restarting`). Called before the checkpoint is restored.
    A related report: https://github.com/Lightning-AI/pytorch-lightning/issues/19617
    """
    trainer.fit_loop._iteration_based_training = _no  # type: ignore[method-assign]  # asked for nothing else


def _no() -> bool:
    return False


def computes_in_bfloat16() -> bool:
    """Whether this x86 processor has instructions for bfloat16.

    torch has no public name for it: https://github.com/pytorch/pytorch/blob/main/torch/cpu/__init__.py
    """
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


class FreePassProfiler(PassThroughProfiler):
    """Measures nothing, at no cost: Lightning's own enters a generator 53 times a step, 0.06 ms."""

    _nothing: AbstractContextManager[None] = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """Do nothing around an action."""
        return self._nothing


class OpenCommandLine(LightningCLI):
    """A LightningCLI that leaves the configuration as it was given, and has a help line for each subcommand.

    Attributes:
        subcommand_help: One line for each subcommand in `--help`. Lightning's are the first lines of docstrings, which
            break off in the middle.
        other_commands_help: The same for subcommands that another parser takes; `--help` lists them too.
        subcommand_hint: A line before and after the hundreds of options that `--help` of a subcommand lists.
        asked_for: The first word of the command line. If it is a subcommand, only that one has options.
    """

    subcommand_help: ClassVar[dict[str, str]] = {}
    other_commands_help: ClassVar[dict[str, str]] = {}
    subcommand_hint: ClassVar[str] = ""
    asked_for: str = ""

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:  # Any: Lightning's own
        super()._add_subcommands(parser, **kwargs)
        action = parser._subcommands_action
        if action is None:
            return
        for listed in action._choices_actions:
            listed.help = self.subcommand_help[listed.dest]
        for name, text in self.other_commands_help.items():
            action._choices_actions.append(action._ChoicesPseudoAction(name, [], text))
        action.metavar = "SUBCOMMAND"
        for name, one in action.choices.items():
            one.description, one.epilog = f"{one.description} {self.subcommand_hint}.", self.subcommand_hint
            others = tuple(f"{other}: " for other in action.choices if other != name)
            for option in actions_of(one):
                if (option.help or "").startswith(others):
                    option.help = SUPPRESS  # of another subcommand; it is taken all the same, as from a fit's file

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Give a parser its options; those of the three that nobody asked for would take 0.15 s."""
        if self.asked_for in self.subcommands() and self.asked_for != subcommand:
            return self.init_parser(**kwargs)
        return super()._prepare_subcommand_parser(klass, subcommand, **kwargs)

    def _parse_ckpt_path(self) -> None:
        """Leave the configuration as it was given.

        Lightning would put the checkpoint's hyperparameters over configuration and flags, in silence:
        https://github.com/Lightning-AI/pytorch-lightning/pull/21455
        """

    def dump_config(self) -> None:
        """Keep the configuration as plain values in `config_dump`, before anything is built from it."""
        self._dump_config()

    def method_arguments(self) -> set[str]:
        """Arguments of the trainer's method that the subcommand calls, such as ckpt_path."""
        return set(self._subcommand_method_arguments[self.subcommand or ""])


def actions_of(parser: ArgumentParser) -> list[Action]:
    """What a parser takes; argparse has no public way to list it."""
    return parser._actions


def options_of_subcommands(parser: LightningArgumentParser) -> dict[str, list[str]]:
    """Long options of each subcommand's parser."""
    action = parser._subcommands_action
    parsers = action.choices if action else {}
    return {
        name: [text for each in actions_of(one) for text in each.option_strings if text.startswith("--")]
        for name, one in parsers.items()
    }
