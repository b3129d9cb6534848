"""Every touch of a private part of Lightning or torch, each with its reason, its measured gain and a canary test.

A canary in tests/modules/test_lightning_internals.py fails when upstream no longer needs the touch.
"""

from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters


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


def restore_loader_place(trainer: Any) -> None:  # Any: private attributes have no types
    """Give a resumed run's training loader its place in the data.

    Lightning does so when it makes the loader, but `estimated_stepping_batches`, which the scheduler needs, has it made
    before the checkpoint is read, and the place is forgotten:
    https://github.com/Lightning-AI/pytorch-lightning/issues/20550
    """
    if trainer.fit_loop._combined_loader_states_to_load:
        trainer.fit_loop._load_combined_loader_states()
