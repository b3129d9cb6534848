"""InputStatisticsSetup: gives a net the mean and deviation of the data that it is about to train on."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from kd_lightning.data.statistics import InputStatistics
from kd_lightning.data.transfer_data import MeasuresInputs, data_of, unit_of
from kd_lightning.modules.lightning_internals import LeanCallback
from kd_lightning.nets.normalize import layers_to_set

_AS_THEY_ARE = InputStatistics(0.0, 1.0)


class InputStatisticsSetup(LeanCallback):
    """Sets a net's `Normalize` layers that were given no numbers, before anything is trained.

    A net that was trained before keeps what it has; that of a resumed run takes it from the checkpoint.
    """

    def __init__(self) -> None:
        self._done = ""  # what was set, for people

    @classmethod
    def put_first(cls, trainer: Trainer) -> None:
        """Add it in front of the trainer's callbacks: WeightAveraging copies the net when it is set up.

        Args:
            trainer: Whose callbacks are not set up yet.
        """
        callbacks = trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning's connector
        if not any(isinstance(callback, cls) for callback in callbacks):
            callbacks.insert(0, cls())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Measure the data and set the layers.

        Args:
            trainer: The run's.
            pl_module: With the net.
            stage: Only fit needs it.
        """
        layers = list(layers_to_set(pl_module)) if stage == "fit" else []
        self._done = ""
        if not layers:
            return
        data = data_of(trainer)
        if isinstance(data, MeasuresInputs):
            # One process measures: others might round in another way.
            measured = data.input_statistics() if trainer.is_global_zero else None
            mean, std = trainer.strategy.broadcast(measured) or _AS_THEY_ARE
            source = f"of the training {unit_of(data)}"
        else:
            mean, std = _AS_THEY_ARE
            source = "since the data says nothing of its inputs; set the net's mean and std to normalise them"
        for layer in layers:
            layer.set(mean, std)
        self._done = f"inputs are normalised by mean {_text(mean)} and deviation {_text(std)}, {source}"

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what was set, unless a checkpoint has restored the run's own numbers."""
        if self._done and trainer.ckpt_path is None:
            rank_zero_info(self._done)


def _text(numbers: float | list[float]) -> str:
    if isinstance(numbers, float):
        return f"{numbers:.4g}"
    shown = ", ".join(f"{number:.4g}" for number in numbers[:3])
    return f"[{shown}{', ...' if len(numbers) > 3 else ''}]"
