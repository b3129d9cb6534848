"""How values of types that the parser does not know stand in config.yaml."""

from pathlib import Path

import torch
from jsonargparse.typing import register_type


def register_config_types() -> None:
    """Tell the parser how to write and read these types."""
    # The default of an argument of StochasticWeightAveraging, which must go into config.yaml.
    register_type(torch.device, fail_already_registered=False)
    register_type(Path, _path_text, type_check=isinstance, fail_already_registered=False)


def _path_text(value: object) -> str:
    """The text of a path in config.yaml.

    Raises:
        ValueError: If it is something else. The parser's own function also turns a whole list of teachers into text,
            which can't be read again where it holds nets.
    """
    if not isinstance(value, str | Path):
        raise ValueError(f"expected a path, got {type(value).__name__}")
    return str(value)
