"""Optimizer, schedule and weight limit of a training run."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Protocol

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from kd_lightning.modules.lightning_internals import LeanCallback, skip_cuda_graph_check


class _TakesSteps(Protocol):
    """A scheduler's class for the command line, which then asks for neither of the names that the run fills in."""

    def __call__(self, optimizer: torch.optim.Optimizer, /, *, total_steps: int, T_max: int) -> LRScheduler:  # noqa: N803
        """Build the scheduler."""


# Names under which schedulers take the run's number of steps; only the former type leaves them out of the options,
# the latter is for those who give them.
STEP_COUNTS = ("total_steps", "T_max")
SchedulerCallable = _TakesSteps | Callable[..., LRScheduler]


def default_optimizer(params: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam with a step size of 1e-3."""
    return torch.optim.Adam(params, lr=1e-3)


def enable_fused_kernels(optimizer: torch.optim.Optimizer) -> None:
    """Have Adam, AdamW or SGD update all parameters in one kernel, where the user chose no other way.

    Measured 1.1 to 1.3 times as fast per training step on the CPU. Set here and not in the constructor, since with
    `fused=True` there Lightning 2.6 refuses gradient clipping under bf16-mixed:
    https://github.com/Lightning-AI/pytorch-lightning/issues/21435

    Args:
        optimizer: Changed in place.
    """
    if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW | torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        chosen = any(group.get(name) for name in ("foreach", "capturable", "differentiable"))
        supported = all(p.is_floating_point() and p.device.type in {"cpu", "cuda"} for p in group["params"])
        if group.get("fused") is None and not chosen and supported:
            group["fused"] = True
    if all(p.device.type == "cpu" for group in optimizer.param_groups for p in group["params"]):
        skip_cuda_graph_check(optimizer)


class WarmupCosine(LambdaLR):
    """Rise linearly over a share of the run, then fall to 0 along half a cosine.

    Args:
        optimizer: Its learning rate is the peak.
        total_steps: Optimizer steps of the whole run.
        warmup_fraction: Share of the steps that rise, in [0, 1).
    """

    def __init__(self, optimizer: torch.optim.Optimizer, total_steps: int, warmup_fraction: float = 0.0) -> None:
        if not 0 <= warmup_fraction < 1:
            raise ValueError(f"warmup_fraction must be in [0, 1), got {warmup_fraction}")
        warmup = round(warmup_fraction * total_steps)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
            return 0.5 * (1 + math.cos(math.pi * progress))

        super().__init__(optimizer, factor)


def make_scheduler(
    scheduler_of: SchedulerCallable, optimizer: torch.optim.Optimizer, run_steps: Callable[[], int]
) -> LRScheduler:
    """Build a scheduler of torch's, or of a user's own, for a run.

    Args:
        scheduler_of: A class or function that takes the optimizer; the run's number of steps is given by name, as
            `total_steps` or `T_max`, where it takes one of them and has none yet.
        optimizer: What it schedules.
        run_steps: Gives the run's number of optimizer steps; called only where the scheduler takes it.

    Raises:
        ValueError: If it needs other arguments, or builds no scheduler.
    """
    factory = _without_instantiator(scheduler_of)
    name = getattr(factory.func if isinstance(factory, partial) else factory, "__qualname__", repr(factory))
    parameters = dict(list(inspect.signature(factory).parameters.items())[1:])  # the optimizer comes first
    given = {key for key, parameter in parameters.items() if parameter.default not in (None, parameter.empty)}
    by_epochs = {"epochs", "steps_per_epoch"} <= given  # OneCycleLR's other way to give it
    unknown = [key for key in STEP_COUNTS if key in parameters and key not in given and not by_epochs]
    missing = [
        key
        for key, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and key not in unknown
    ]
    if missing:
        raise ValueError(
            f"scheduler {name} also needs {', '.join(missing)}; give it with functools.partial, or name it total_steps "
            "or T_max if it is the run's number of steps"
        )
    steps = dict.fromkeys(unknown, run_steps()) if unknown else {}
    scheduler: object = factory(optimizer, **steps)
    if not isinstance(scheduler, LRScheduler):
        raise ValueError(
            f"scheduler {name} must give a torch.optim.lr_scheduler.LRScheduler, got {type(scheduler).__name__}"
        )
    return scheduler


class PlateauSteps(LeanCallback):
    """Steps each ReduceLROnPlateau of a run after an epoch that validated.

    Lightning does so after the epoch's checkpoint: a run that is resumed from it would lose a step.
    """

    def __init__(self) -> None:
        self._measured: dict[str, float] = {}  # of the latest validation, maybe before the run was resumed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse to wait for a validation that never comes.

        Raises:
            ValueError: If a scheduler would.
        """
        for _, monitor in _plateaus(trainer):
            if monitor.startswith("val/") and not sum(trainer.num_val_batches):
                raise ValueError(
                    f"ReduceLROnPlateau watches {monitor}, and this run does not validate; set --data.val_size, "
                    "or take lightning.pytorch.cli.ReduceLROnPlateau with monitor train/loss"
                )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Step.

        Raises:
            ValueError: If what a scheduler watches is not logged.
        """
        if (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1):
            return
        metrics: dict[str, Any] = {**self._measured, **trainer.callback_metrics}
        for scheduler, monitor in _plateaus(trainer):
            if monitor not in metrics:
                raise ValueError(
                    f"ReduceLROnPlateau watches {monitor}, which is not logged; expected one of {sorted(metrics)}"
                )
            scheduler.step(metrics[monitor])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what this validation measured of what the schedulers watch."""
        if trainer.sanity_checking:
            return
        metrics, watched = trainer.callback_metrics, {monitor for _, monitor in _plateaus(trainer)}
        self._measured = {monitor: float(metrics[monitor]) for monitor in watched & metrics.keys()}

    def state_dict(self) -> dict[str, Any]:
        """What the latest validation measured."""
        return {"measured": self._measured}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with it."""
        self._measured = state_dict["measured"]


def _plateaus(trainer: Trainer) -> Iterator[tuple[ReduceLROnPlateau, str]]:
    """Each ReduceLROnPlateau of a run and what it watches."""
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, ReduceLROnPlateau):
            yield config.scheduler, str(config.monitor)


def _without_instantiator(scheduler_of: SchedulerCallable) -> Callable[..., LRScheduler]:
    """The class with its arguments, in place of the function that the command line puts around them.

    Its signature then shows the arguments that it takes.
    """
    if isinstance(scheduler_of, partial) and scheduler_of.args and isinstance(scheduler_of.args[-1], type):
        return partial(scheduler_of.args[-1], **scheduler_of.keywords)
    return scheduler_of


def drop_functions(checkpoint: dict[str, Any]) -> None:
    """Take out of a checkpoint the function that SWALR keeps in torch 2.9: weights_only refuses to read it back."""
    callbacks = checkpoint.get("callbacks", {}).values()
    of_callbacks = (state.get("scheduler_state") for state in callbacks if isinstance(state, dict))
    for state in (*checkpoint.get("lr_schedulers", ()), *of_callbacks):
        if state:
            state.pop("anneal_func", None)


@torch.no_grad()
def limit_norms(net: nn.Module, max_norm: float) -> None:
    """Scale down the incoming weights of each unit whose L2 norm is above `max_norm`.

    Source: Srivastava et al., "Dropout", 2014, section 5.1, as used by the teacher in Hinton et al. 2015.

    Args:
        net: Its linear and convolutional layers are changed in place.
        max_norm: > 0.
    """
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            weight = layer.weight  # (out, in, ...), perhaps with the channels last in memory
            norms = torch.linalg.vector_norm(weight.flatten(1), dim=1).view(-1, *[1] * (weight.dim() - 1))
            weight.mul_((max_norm / norms).clamp(max=1.0))


def gradient_shares(logits: Tensor, **losses: Tensor) -> dict[str, Tensor]:
    """Share of each loss in the gradient's L2 norm at the logits, `<name>_gradient_share`, summing to 1.

    It is measured at the logits because that is cheap, and the layers before them are the same for all losses.

    Args:
        logits: (batch, classes) float, with their graph, which is kept.
        losses: Scalars, as they enter the sum that is minimised.
    """
    norms = {
        name: torch.autograd.grad(loss, logits, retain_graph=True)[0].float().norm() for name, loss in losses.items()
    }
    total = sum(norms.values(), torch.zeros((), device=logits.device)).clamp(min=torch.finfo(torch.float32).tiny)
    return {f"{name}_gradient_share": norm / total for name, norm in norms.items()}


def planned_steps(trainer: Trainer) -> float:
    """Number of optimizer steps of the whole run; infinite where nothing limits them.

    Lightning's own estimate takes one number of batches per step for the whole run, and -1 for endless data.

    Args:
        trainer: With its module and its data.
    """
    estimated = trainer.estimated_stepping_batches
    if estimated == -1:
        return math.inf
    batches, epochs = trainer.num_training_batches, trainer.max_epochs
    schedule = accumulation_schedule(trainer)
    if schedule is None or math.isinf(batches) or epochs is None or epochs < 0:
        return estimated
    steps = sum(math.ceil(batches / schedule.get_accumulate_grad_batches(epoch)) for epoch in range(epochs))
    return steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)


def accumulation_schedule(trainer: Trainer) -> GradientAccumulationScheduler | None:
    """The callback that changes the number of batches per step from epoch to epoch; None without one."""
    found = (callback for callback in trainer.callbacks if isinstance(callback, GradientAccumulationScheduler))  # type: ignore[attr-defined]  # set by Lightning's connector
    return next(found, None)


def steps_of_run(trainer: Trainer) -> int:
    """Optimizer steps of the whole run.

    Raises:
        ValueError: If the training data has no length and nothing limits the run.
    """
    planned = planned_steps(trainer)
    if math.isinf(planned):
        raise ValueError(
            "a schedule needs to know the run's length, and the training data has none; "
            "set --trainer.max_steps, or --trainer.limit_train_batches with max_epochs"
        )
    return int(planned)
