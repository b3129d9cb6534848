"""Corrections to Lightning's callbacks when a run is resumed, and the reason why a fit ended."""

import math
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, StochasticWeightAveraging, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from kd_lightning.modules.lightning_internals import LeanCallback, resume_after_whole_epochs
from kd_lightning.modules.optimization import accumulation_schedule, planned_steps
from kd_lightning.runs.checkpoints import RECORD_KEY, read_checkpoint

NOT_STOPPED = EarlyStoppingReason.NOT_STOPPED
State = dict[str, Any]  # what a callback keeps in a checkpoint; each has its own entries


class ResumedCallbacks(LeanCallback):
    """Lets the callbacks of a resumed run continue as if it had not been interrupted.

    ModelCheckpoint forgets the best score when the folder was moved or copied, Timer takes the time of earlier jobs for
    its own, EarlyStopping continues a run that it had ended, callbacks miss their set-up at an epoch's start after a
    resume within an epoch, and with max_steps the loop leaves out the epoch after a whole one.

    Args:
        config: The resolved configuration.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self._checkpoint: dict[str, Any] = {}  # until all of it is restored
        self._planned_before: float | None = None  # steps of the whole run, as the resumed checkpoint knows it
        self._averaging: StochasticWeightAveraging | None = None  # has begun in the resumed run

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have the loop restored as it should be."""
        if stage == "fit":
            resume_after_whole_epochs(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Correct the states of other callbacks before they take them.

        Raises:
            ValueError: If one has another form than the callback's own.
        """
        self._checkpoint = checkpoint
        record, states = checkpoint.get(RECORD_KEY, {}), checkpoint["callbacks"]
        self._planned_before = record.get("planned_steps")
        before = record.get("config") or {}
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set by Lightning's connector
            state = states.get(callback.state_key)
            if not state:
                continue
            refuse_other_form(callback.state_dict(), state, f"callbacks.{callback.state_key}")
            if isinstance(callback, Timer):
                state["time_elapsed"] = {}  # the limit counts per job
            elif isinstance(callback, ModelCheckpoint):
                state |= checkpoints_in_folder(callback, state)
            elif isinstance(callback, EarlyStopping):
                state["patience"] = (
                    callback.patience
                )  # Lightning would restore the old one and ignore the configuration
                if _arguments(callback, before) != _arguments(callback, self.config):
                    state["stopping_reason"] = NOT_STOPPED.value  # the user wants to train on
                trainer.should_stop |= state["stopping_reason"] != NOT_STOPPED.value
            elif isinstance(callback, StochasticWeightAveraging) and state["scheduler_state"] is not None:
                self._averaging = callback

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a checkpoint whose states have another form than those that they will replace.

        Lightning takes them as they are, and fails in the middle of a step.

        Raises:
            ValueError: If there is one.
        """
        if not self._checkpoint:
            return
        refuse_other_form(trainer.fit_loop.state_dict(), self._checkpoint["loops"]["fit_loop"], "loops.fit_loop")
        optimizers = self._checkpoint["optimizer_states"]
        refuse_other_form([each.state_dict() for each in trainer.optimizers], optimizers, "optimizer_states")
        for number, optimizer in enumerate(optimizers):
            for key, state in optimizer["state"].items():
                place = f"optimizer_states.{number}.state.{key}"
                refuse_other_form({}, state, place)
                for name, value in state.items():
                    if not isinstance(value, Tensor | float | int | None):
                        refuse_other_form(torch.empty(0), value, f"{place}.{name}")
        schedulers = [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
        refuse_other_form(schedulers, self._checkpoint["lr_schedulers"], "lr_schedulers")
        self._checkpoint = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do what callbacks do at an epoch's start, which a resume within an epoch skips."""
        schedule = accumulation_schedule(trainer)
        if schedule is not None:
            trainer.accumulate_grad_batches = schedule.get_accumulate_grad_batches(trainer.current_epoch)
        if self._averaging is not None and trainer.fit_loop.restarted_mid_epoch:
            self._averaging.on_train_epoch_start(trainer, pl_module)
        if self._planned_before is not None:
            _log_other_length(trainer, self._planned_before)


class Ending(LeanCallback):
    """Logs at the end of a fit why it ended, if that was before its planned end.

    Args:
        first_step: Steps that the resumed checkpoint had made; 0 for a new run.
        has_checkpoint: Whether the run's folder has a checkpoint even if no step is made.
    """

    def __init__(self, first_step: int = 0, *, has_checkpoint: bool = False) -> None:
        self.first_step = first_step
        self.has_checkpoint = has_checkpoint

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the reason.

        Raises:
            ValueError: If no step was made and there is no checkpoint either.
        """
        reason = why_it_ended(trainer)
        if trainer.global_step == self.first_step:
            reason = reason or "max_epochs or max_steps had been reached; raise it to train on"
            if not self.has_checkpoint:
                raise ValueError(f"no step was made, so there is no checkpoint: {reason}")
            rank_zero_info(f"nothing was left to train: {reason}")
        elif reason:
            planned = planned_steps(trainer)
            length = "" if math.isinf(planned) else f" of {planned:,.0f}"
            rank_zero_info(f"ended after step {trainer.global_step:,}{length}: {reason}")


def refuse_other_form(ours: object, theirs: object, place: str) -> None:
    """Refuse a state from a checkpoint that has another form than ours.

    Entries that only one of them has are not checked.

    Args:
        ours: A state as it is now.
        theirs: The state that is to replace it.
        place: Its place in the checkpoint.

    Raises:
        ValueError: If a number, a text, a tensor, a list or a dict is found where another of them is expected.
    """
    match ours:
        case bool() | int() | float():
            kinds: tuple[type, ...] = (int, float)
        case list() | tuple():
            kinds = (list, tuple)
        case str() | Tensor():
            kinds = (type(ours),)
        case dict():
            kinds = (dict,)
        case _:
            return
    if not isinstance(theirs, kinds):
        raise ValueError(f"the checkpoint is damaged: {place} is {theirs!r:.40}, expected {ours!r:.40} or the like")
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in ours.keys() & theirs.keys():
            refuse_other_form(ours[key], theirs[key], f"{place}.{key}")
    elif isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        for number, (mine, its) in enumerate(zip(ours, theirs, strict=False)):
            refuse_other_form(mine, its, f"{place}.{number}")


@contextmanager
def restoring_errors(path: str | None) -> Iterator[None]:
    """Name the checkpoint in what fails while Lightning restores it.

    Args:
        path: The file; None where none is restored.

    Raises:
        ValueError: In place of errors that the user can't understand.
    """
    try:
        yield
    except (TypeError, LookupError, AttributeError, AssertionError, ArithmeticError) as error:
        frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        if path is None or not any(file.endswith("checkpoint_connector.py") for file in frames):
            raise
        raise ValueError(
            f"checkpoint {path} is damaged and can't be restored ({type(error).__name__}: {error})"
        ) from error


def checkpoints_in_folder(callback: ModelCheckpoint, state: State) -> State:
    """The best checkpoints that lie in a callback's folder by now, as entries of its state.

    Lightning compares the paths with those at the time of saving, and drops all scores if the folder has changed. A
    file may also be newer than the checkpoint that is resumed: its own score counts.

    Args:
        callback: With its folder.
        state: From the resumed checkpoint.
    """
    folder = Path(str(callback.dirpath))
    last = folder / Path(state["last_model_path"]).name
    moved = {"dirpath": callback.dirpath, "last_model_path": str(last) if last.is_file() else ""}
    if callback.monitor is None:
        newest = folder / Path(state["best_model_path"]).name
        return moved | {"best_model_path": str(newest) if newest.is_file() else ""}
    scores = {Path(path).name: score for path, score in state["best_k_models"].items()}
    files = [folder / name for name in scores or [f"{callback.filename}.ckpt"]]
    found = {str(path): _own_score(path, callback.state_key, scores.get(path.name)) for path in files if path.is_file()}
    scores = {path: score for path, score in found.items() if score is not None}
    ranked = sorted(scores, key=lambda path: float(scores[path]), reverse=callback.mode == "max")
    best, worst = (ranked[0], ranked[-1]) if ranked else ("", "")
    return moved | {
        "best_k_models": scores,
        "best_model_path": best,
        "best_model_score": scores.get(best),
        "kth_best_model_path": worst,
        "kth_value": scores.get(worst, callback.kth_value),  # before the first validation as Lightning begins
    }


def _own_score(path: Path, key: str, score: Tensor | None) -> Tensor | None:
    """The score that a kept checkpoint had when it was written; None where the file can't be used.

    Args:
        path: The file.
        key: Under which it has the state of the callback that wrote it.
        score: The score in the resumed checkpoint, for a file with only weights.
    """
    try:
        states = read_checkpoint(path).get("callbacks", {})
    except ValueError:
        return None
    current: Tensor | None = states.get(key, {}).get("current_score", score)
    return current


def _arguments(callback: Callback, config: dict[str, Any]) -> list[Any]:
    """The configured arguments of the callbacks of a class."""
    given = config.get("trainer", {}).get("callbacks") or []
    entries = given if isinstance(given, list) else [given]
    name = type(callback).__name__
    return [entry for entry in entries if str(entry.get("class_path")).rpartition(".")[2] == name]


def _log_other_length(trainer: Trainer, before: float) -> None:
    """Log how a new length of the run changes its learning rate.

    Args:
        trainer: At the start of a resumed run.
        before: Steps of the whole run as it was planned.
    """
    now = planned_steps(trainer)
    if now == before or not trainer.lr_scheduler_configs:
        return
    scheduler = trainer.lr_scheduler_configs[0].scheduler
    name, text = type(scheduler).__name__, f"the run is {now:,.0f} steps long now, {before:,.0f} before"
    if isinstance(scheduler, LambdaLR):
        old, new = scheduler.get_last_lr()[0], scheduler.base_lrs[0] * scheduler.lr_lambdas[0](scheduler.last_epoch)
        if new != old:
            rank_zero_info(
                f"{text}: {name} spans the new length, so the learning rate goes from {old:.2g} to {new:.2g}"
            )
    elif hasattr(scheduler, "total_steps") or hasattr(scheduler, "T_max"):
        rank_zero_info(f"{text}: {name} keeps the length that it began with")


def why_it_ended(trainer: Trainer) -> str:
    """Why a fit ended, as the second half of a sentence; empty at its planned end."""
    finished = not trainer.should_stop and trainer.current_epoch == trainer.max_epochs
    if finished or trainer.global_step >= planned_steps(trainer):
        return ""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set by Lightning's connector
        remaining = callback.time_remaining() if isinstance(callback, Timer) else None
        if remaining is not None and remaining <= 0:
            return "the time was up that max_time gives to each job; the same command with --ckpt_path last resumes it"
        if isinstance(callback, EarlyStopping) and callback.stopping_reason != NOT_STOPPED:
            message = str(callback.stopping_reason_message).removesuffix(" Signaling Trainer to stop.").rstrip(".")
            return f"EarlyStopping ended the run ({message}); with other arguments for it the run can be resumed"
    if trainer.should_stop:
        return "a callback ended it; the same command with --ckpt_path last resumes it"
    return "the training data came to an end"
