"""The columns of TensorBoard's hparams tab."""

import inspect
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard.summary import hparams

from kd_lightning.data.transfer_data import data_of
from kd_lightning.modules.classifier import ClassifierModule
from kd_lightning.nets.description import describe_net, parameter_count
from kd_lightning.teachers.ensemble import teachers_of

# Those that stand in the configuration, by their place.
_PLACES = {
    "temperature": "model.init_args.temperature",
    "soft_weight": "model.init_args.soft_weight",
    "label_smoothing": "model.init_args.label_smoothing",
    "soft_loss": "model.init_args.soft_loss.class_path",
    "scheduler": "model.init_args.scheduler.class_path",
    "data": "data.init_args.dataset",
    "train_fraction": "data.init_args.train_fraction",
    "augment": "data.init_args.augment.class_path",
    "batch_size": "data.init_args.batch_size",
    "epochs": "trainer.max_epochs",
    "precision": "trainer.precision",
    "seed": "seed_everything",
}
_NUMBERS = (
    "temperature",
    "soft_weight",
    "label_smoothing",
    "train_fraction",
    "lr",
    "batch_size",
    "epochs",
    "seed",
    "parameters",
    "teachers",
)
COLUMNS = (*_PLACES, "lr", "optimizer", "net", "parameters", "teachers")
# TensorBoard shows the first five columns by default.
FIRST_COLUMNS = ("label_smoothing", "lr", "net", "soft_weight", "temperature")
# val/loss depends on soft_weight and T: no figure to compare runs by.
FINAL_METRICS = ("test/errors", "val/accuracy", "val/hard_loss", "test/accuracy", "test/nll", "test/ece")


def hyperparameters(config: dict[str, Any], trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """A run's values by column; what it does not have is missing.

    Of a schedule the start is taken: a column holds numbers.

    Args:
        config: The resolved configuration.
        trainer: With its optimizers.
        module: The module that trains.
    """
    values: dict[str, Any] = {}
    for name, place in _PLACES.items():
        value = _value_at(config, place)
        if isinstance(value, Mapping):
            value = value.get("init_args", value).get("start")
        if isinstance(value, bool | int | float):
            values[name] = value
        elif value is not None:
            values[name] = str(value).rpartition(".")[2] if "." in str(value) else str(value)
    if _value_at(config, _PLACES["soft_weight"]) == 0:
        values.pop("temperature", None)  # a plain student has none
    data = data_of(trainer)
    if data is not None:
        values.setdefault("data", type(data).__name__)
    if trainer.optimizers:
        group = trainer.optimizers[0].param_groups[0]
        values["lr"] = float(group.get("initial_lr", group["lr"]))  # where a schedule starts from
        values["optimizer"] = type(trainer.optimizers[0]).__name__
    if isinstance(module, ClassifierModule):
        values["net"] = _net_text(module)
        values["parameters"] = parameter_count(module.net)
    teachers = teachers_of(module)
    return values | {"teachers": 0 if teachers is None else len(teachers)}


def _value_at(config: dict[str, Any], place: str) -> Any:  # Any: a configuration's value
    value: Any = config
    for key in place.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def hparams_summaries(values: dict[str, Any]) -> list[Any]:
    """The tab's columns and this run's values in them.

    TensorBoard takes the columns from whichever run it read first, a teacher perhaps, so each run names them all; so
    all settings of a net stand in one column, whatever its class.
    """
    metrics = dict.fromkeys(FINAL_METRICS, 0.0)
    missing = {name: 0.0 if name in _NUMBERS else "" for name in COLUMNS}
    columns, _, _ = hparams(missing | values, metrics)  # type: ignore[no-untyped-call]
    _, start, end = hparams(values, metrics)  # type: ignore[no-untyped-call]
    return [_first_columns_first(columns), start, end]


def _first_columns_first(columns: Any) -> Any:  # Any: TensorBoard's protocol buffers have no types
    metadata = columns.value[0].metadata.plugin_data
    content = HParamsPluginData.FromString(metadata.content)
    for info in content.experiment.hparam_infos:
        info.differs = info.name in FIRST_COLUMNS
    metadata.content = content.SerializeToString()
    return columns


def _net_text(module: ClassifierModule) -> str:
    """A net's class, and its arguments that are not the defaults: MLP [300,300], dropout_hidden=0.2.

    Short, as TensorBoard shows some twenty characters: the class's first argument stands without its name.
    """
    described = module.hparams.get(module.net_argument) or describe_net(module.net)
    name = type(module.net).__name__
    if not isinstance(described, Mapping):
        return name
    parameters = inspect.signature(type(module.net)).parameters
    given = {
        key: value
        for key, value in dict(described.get("init_args") or {}).items()
        if key not in parameters or parameters[key].default != value
    }
    first = next(iter(parameters), None)
    texts = [f"{value}".replace(", ", ",") if key == first else f"{key}={value}" for key, value in given.items()]
    return " ".join([name, ", ".join(texts)]).strip()
