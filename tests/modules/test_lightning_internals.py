"""Private parts of Lightning, torch and jsonargparse are touched in one file, and each touch is still needed."""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import kd_lightning

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
    named_tuples = {"_asdict", "_fields", "_replace", "_make"}  # public, whatever their names
    assert set(private_touches(file.read_text(encoding="utf-8"))) - named_tuples == set()


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
            foreign = [base for base in cls.__mro__ if not base.__module__.startswith("kd_lightning")]
            overridden += [
                f"{cls.__qualname__}.{name}"
                for name in vars(cls)
                if _is_private(name) and any(name in vars(base) for base in foreign)
                if not name.startswith("_abc_")
            ]
    assert overridden == []
