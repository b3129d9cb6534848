"""Imports point one way, and the public names are there."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import kd_lightning

PACKAGE = Path(kd_lightning.__file__).parent
# Each room may import from itself and from rooms on lower floors.
FLOORS = [
    {"runs"},
    {"data", "nets", "methods"},
    {"metrics", "reports"},
    {"teachers"},
    {"modules"},
    {"training", "export"},
    {"cli"},
    {"__main__"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
ONLY = {"reports": {"runs"}}  # what a room may import where that is less than everything below


def imported_rooms(source: str) -> Iterator[str]:
    """The rooms of the package that a file imports, whatever the form; unknown forms are an error."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        match node:
            case ast.ImportFrom(module=module, names=aliases, level=level):
                assert level == 0, "imports are absolute here"
                names = [f"{module}.{alias.name}" for alias in aliases]
            case ast.Import(names=aliases):
                names = [alias.name for alias in aliases]
            case ast.Call(func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"), args=[first, *_]):
                match first:
                    case ast.Constant(value=str(name)):
                        names = [name]
                    case ast.JoinedStr(values=[ast.Constant(value=str(start)), *_]) if start.startswith(
                        "kd_lightning."
                    ):
                        names = [start + "*"]
        for name in names:
            parts = name.split(".")
            if parts[0] == "kd_lightning":
                yield parts[1] if len(parts) > 1 else "*"


def violations(room: str, source: str) -> list[str]:
    allowed = ONLY.get(room) or {other for other in FLOOR_OF if FLOOR_OF[other] < FLOOR_OF[room]}
    return [name for name in imported_rooms(source) if name not in allowed | {room, "__version__"}]


def test_rooms_are_the_ones_that_are_known() -> None:
    rooms = {file.stem for file in PACKAGE.iterdir() if file.suffix == ".py" or (file / "__init__.py").exists()}
    assert rooms - {"__init__"} == FLOOR_OF.keys()


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_one_way(file: Path) -> None:
    room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room != "__init__":
        assert violations(room, file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "planted",
    [
        "from kd_lightning.cli.command_line import main",
        "from kd_lightning import cli",
        "from kd_lightning import main",
        "import kd_lightning.cli",
        "import kd_lightning",
        "from importlib import import_module\nimport_module('kd_lightning.cli')",
        "import importlib\nimportlib.import_module('kd_lightning.cli.command_line')",
        "def later():\n    from kd_lightning.modules import DistillModule",
    ],
)
def test_an_import_that_points_up_is_found(planted: str) -> None:
    assert violations("methods", planted)


def test_public_names_are_there() -> None:
    for name in kd_lightning.__all__:
        assert getattr(kd_lightning, name) is not None


def test_type_checkers_see_what_is_there() -> None:
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    seen = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(kd_lightning.__all__)


SOURCES = [*sorted(PACKAGE.rglob("*.py")), *sorted((PACKAGE.parent / "scripts").rglob("*.py"))]


def text_in_the_locales_encoding(source: str) -> list[str]:
    """The calls that read or write text and do not say in which encoding."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(keyword.arg in {"encoding", None} for keyword in node.keywords):
            continue
        match node.func:
            case ast.Attribute(value=ast.Name(id="os" | "Image"), attr="open"):  # bytes
                pass
            case ast.Attribute(attr="read_text" | "write_text"):
                found.append(ast.unparse(node))
            case ast.Attribute(attr="open") | ast.Name(id="open"):
                arguments = node.args if isinstance(node.func, ast.Attribute) else node.args[1:]
                mode = arguments[0].value if arguments and isinstance(arguments[0], ast.Constant) else ""
                if "b" not in str(mode):
                    found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(PACKAGE.parent)))
def test_text_is_utf8_in_every_locale(file: Path) -> None:
    assert text_in_the_locales_encoding(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("planted", ["p.read_text()", "p.write_text(t)", "open('b')", "p.open()", "p.open('w')"])
def test_text_in_the_locales_encoding_is_found(planted: str) -> None:
    assert text_in_the_locales_encoding(planted)
