"""Private parts of Lightning, torch and jsonargparse are touched in one file, and each touch is still needed."""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import lightning
import pytest
import torch
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
from lightning.pytorch.profilers import PassThroughProfiler

import kd_lightning
from kd_lightning.modules.lightning_internals import (
    STEP_HOOKS,
    LeanCallback,
    built_by_command_line,
    computes_in_bfloat16,
)
from kd_lightning.training.resuming import ResumedCallbacks

PACKAGE = Path(kd_lightning.__file__).parent
INTERNALS = PACKAGE / "modules" / "lightning_internals.py"
OTHERS = sorted(set(PACKAGE.rglob("*.py")) - {INTERNALS})


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _own_names() -> set[str]:
    """Private names that this package defines itself."""
    names: set[str] = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    names.add(name)
                case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()):
                    names.add(name)
    return names


OWN = _own_names()


def private_touches(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(attr=name, ctx=ast.Load()) if _is_private(name) and name not in OWN:
                yield name
            case ast.Attribute(value=value, attr=name, ctx=ast.Store()) if _is_private(name):
                if not (isinstance(value, ast.Name) and value.id in {"self", "cls"}):
                    yield name
            case ast.ImportFrom(module=str(module), names=aliases) if not module.startswith("kd_lightning"):
                parts = [*module.split("."), *(alias.name for alias in aliases)]
                yield from (part for part in parts if _is_private(part))


@pytest.mark.parametrize("file", OTHERS, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_private_attribute_of_a_library_is_touched_elsewhere(file: Path) -> None:
    public = {"_asdict", "_fields", "_replace", "_make", "_exit"}  # of NamedTuple and os, whatever their names
    assert set(private_touches(file.read_text(encoding="utf-8"))) - public == set()


@pytest.mark.parametrize(
    "planted", ["trainer._checkpoint_connector", "optimizer._check = None", "from lightning.x._y import z"]
)
def test_a_private_touch_is_found(planted: str) -> None:
    assert list(private_touches(planted))


def test_no_private_method_of_a_library_is_overridden_elsewhere() -> None:
    overridden = []
    for module in pkgutil.walk_packages([str(PACKAGE)], "kd_lightning."):
        if module.name in {"kd_lightning.__main__", "kd_lightning.modules.lightning_internals"}:
            continue
        for _, cls in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if cls.__module__ != module.name:
                continue
            libraries = ("lightning", "torch", "torchmetrics", "jsonargparse")
            foreign = [base for base in cls.__mro__ if base.__module__.startswith(libraries)]
            overridden += [
                f"{cls.__qualname__}.{name}"
                for name in vars(cls)
                # torch's own modules override `_apply`, the one place through which all moves and casts go.
                if _is_private(name)
                and name != "_apply"
                and any(inspect.isfunction(vars(base).get(name)) for base in foreign)
            ]
    assert overridden == []


# Canaries: each fails when upstream has changed, and the touch can go or must be looked at again.


class Assigned(lightning.LightningModule):
    """Counts what a training step assigns through torch's slow `__setattr__`."""

    names: ClassVar[list[str]] = []

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def __setattr__(self, name: str, value: Any) -> None:
        self.names.append(name)
        super().__setattr__(name, value)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss: torch.Tensor = self.layer(batch[0]).sum()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_still_assigns_the_hooks_name_many_times_a_step() -> None:
    module = Assigned()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "barebones": False}
    trainer = lightning.Trainer(max_steps=1, accelerator="cpu", enable_model_summary=False, **quiet)  # type: ignore[arg-type]
    Assigned.names.clear()
    trainer.fit(module, torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(1, 2))))
    assert Assigned.names.count("_current_fx_name") > 10


def test_lightnings_profiler_still_enters_a_generator() -> None:
    profiled = inspect.unwrap(PassThroughProfiler.profile)
    assert inspect.isgeneratorfunction(profiled)


class SavesAtTwo(lightning.Callback):
    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.global_step == 2:
            trainer.save_checkpoint(self.file)


class Validated(Assigned):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Measure nothing."""


def _three_steps(data: Any, callback: lightning.Callback | None, checkpoint: Path | None = None) -> int:
    """The steps that a fit of three steps made, two an epoch."""
    trainer = lightning.Trainer(
        max_epochs=2,
        max_steps=3,
        callbacks=callback,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Validated(), data, data, ckpt_path=checkpoint)
    return trainer.global_step


@pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers
def test_lightning_still_leaves_out_an_epoch_where_there_are_max_steps(tmp_path: Path) -> None:
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(2, 2)))
    file = tmp_path / "end-of-epoch.ckpt"
    assert _three_steps(data, SavesAtTwo(file)) == 3
    assert _three_steps(data, None, file) == 2
    assert _three_steps(data, ResumedCallbacks({}), file) == 3


def test_optimizers_still_check_for_graph_capture_at_each_step() -> None:
    step = inspect.getsource(torch.optim.Adam.step)
    names = ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check")  # the second in torch 2.9
    assert any(f"self.{name}()" in step for name in names)


def test_torch_still_has_no_public_name_for_bfloat16_instructions() -> None:
    public = [name for name in dir(torch.cpu) if not name.startswith("_")]
    assert not any("bf16" in name or "amx" in name for name in public)
    assert isinstance(computes_in_bfloat16(), bool)


def test_the_command_line_still_tells_a_module_its_arguments_by_a_context_variable() -> None:
    assert not built_by_command_line()
    token = _given_hyperparameters.set({"net": 1})
    try:
        assert built_by_command_line()
    finally:
        _given_hyperparameters.reset(token)


def test_lightning_still_calls_empty_hooks_and_skips_what_can_not_be_called() -> None:
    source = inspect.getsource(lightning.pytorch.trainer.call._call_callback_hooks)
    assert "if callable(fn):" in source
    assert "is_overridden" not in source  # then empty hooks would cost nothing


def test_a_lean_callback_has_the_hooks_that_it_defines_and_those_outside_steps() -> None:
    class Counting(LeanCallback):
        def on_train_batch_end(self, *args: Any) -> None:
            """Do something."""

    assert callable(Counting().on_train_batch_end)
    assert callable(Counting().on_train_epoch_end)
    assert not any(callable(getattr(Counting(), name)) for name in STEP_HOOKS if name != "on_train_batch_end")
