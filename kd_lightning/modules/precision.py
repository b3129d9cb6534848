"""Number types of a run: which one can't train, and which one is slow on this processor."""

import platform

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from kd_lightning.modules.lightning_internals import LeanCallback, computes_in_bfloat16


class PrecisionCheck(LeanCallback):
    """Checks the precision before anything is read."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check it.

        Raises:
            ValueError: If the precision can't train.
        """
        check_precision(trainer.precision, trainer.strategy.root_device, trains=stage == "fit")


def check_precision(precision: str, device: torch.device, *, trains: bool) -> None:
    """Refuse a precision that can't train, and warn of a slow one.

    Args:
        precision: As the trainer names it, such as bf16-mixed.
        device: Where the net runs.
        trains: Whether the run trains, and does not only evaluate.

    Raises:
        ValueError: If the run trains and the weights would be float16.
    """
    if trains and precision == "16-true":
        raise ValueError(
            "trainer.precision 16-true can't train: in float16 Adam's epsilon of 1e-8 is 0 and small gradients vanish; "
            "expected 32-true, bf16-mixed or bf16-true (16-true can evaluate)"
        )
    if precision.startswith("bf16"):
        note_slow_bfloat16(f"trainer.precision {precision}", device)


def note_slow_bfloat16(option: str, device: torch.device) -> None:
    """Warn that bfloat16 is slow if the processor has no instructions for it.

    Args:
        option: What asks for bfloat16, for people.
        device: Where the net runs.
    """
    if device.type == "cpu" and not has_bfloat16_instructions():
        # Measured: an epoch of 48 s under bf16-mixed at batch 512, of 4.7 s in float32 at batch 128.
        rank_zero_info(
            f"{option}: this processor has no instructions for bfloat16 (AVX512-BF16 or AMX); "
            "there it was measured ten times slower than float32"
        )


def has_bfloat16_instructions() -> bool:
    """Whether an x86 processor computes in bfloat16; True for other processors, of which nothing was measured."""
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return True
    return computes_in_bfloat16()
