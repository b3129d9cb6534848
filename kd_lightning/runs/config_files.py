"""Configuration files that a command line names, looked at before the parser reads them."""

import codecs
import locale
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import yaml

CONFIG_OPTIONS = ("-c", "--config")


def option_values(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
    """What is given for an option, as `--name value` or `--name=value`, in order.

    Args:
        arguments: The command line.
        names: Of the option, with their dashes.
    """
    starts = tuple(f"{name}=" for name in names)
    values = []
    for argument, following in pairwise([*arguments, ""]):
        if argument.startswith(starts):
            values.append(argument.split("=", 1)[1])
        elif argument in names and following:
            values.append(following)
    return values


def check_config_files(arguments: Sequence[str]) -> None:
    """Refuse configuration files that hold no options, or one twice; the parser reports missing files.

    Args:
        arguments: The command line.

    Raises:
        ValueError: If there is such a file.
    """
    for value in option_values(arguments, CONFIG_OPTIONS):
        path = Path(value)
        if path.is_dir():
            raise IsADirectoryError(f"configuration {path} is a folder; expected a YAML file")
        if path.is_file():
            _check_config_file(path)


def _check_config_file(path: Path) -> None:
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise ValueError(f"configuration {path} must be UTF-8 text: {error.reason} at byte {error.start}") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"configuration {path}{line} is no YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"configuration {path} is no YAML: {str(error).splitlines()[0]}") from error
    encoding = locale.getpreferredencoding(False)  # the parser reads the file in this one
    if not text.isascii() and codecs.lookup(encoding).name != "utf-8":
        raise ValueError(
            f"configuration {path} is UTF-8 text and would be read as {encoding} in this locale; "
            "set PYTHONUTF8=1, or keep the file to ASCII"
        )
    if not isinstance(root, yaml.MappingNode):
        kind = "nothing" if root is None else "a list" if isinstance(root, yaml.SequenceNode) else "one value"
        raise ValueError(f"configuration {path} must hold options, each as `name: value`, got {kind}")
    for key, first, second in repeated_keys(root):
        raise ValueError(f"configuration {path} has {key} twice, in lines {first} and {second}; keep one of them")


def repeated_keys(node: yaml.Node | None, path: str = "") -> Iterator[tuple[str, int, int]]:
    """Keys that occur twice in one mapping, of which YAML takes the last: each with its path and its two lines.

    Args:
        node: What `yaml.compose` gives of a file.
        path: Of the node, before the keys' own.
    """
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from repeated_keys(item, f"{path}[{number}]")
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        name, line = f"{path}.{key.value}".removeprefix("."), key.start_mark.line + 1
        if name in lines:
            yield name, lines[name], line
        lines[name] = line
        yield from repeated_keys(value, name)
