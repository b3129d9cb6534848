"""The errors of constructors come out as they were raised, whatever types an option may have."""

import jsonargparse
import pytest
from torch import nn

from kd_lightning.nets.construction import constructor_errors

MISSING = (
    "{class_path: kd_lightning.PretrainedNet, init_args: "
    "{net: {class_path: kd_lightning.MLP, init_args: {hidden: [8]}}, weights: nowhere.pt}}"
)


class Wrapper(nn.Module):
    def __init__(self, net: str | nn.Module | None) -> None:
        super().__init__()


def download(progress: bool = True) -> nn.Module:
    """A function in a class's place, as torchvision's nets are."""
    raise ConnectionError("no network")


def _built(config: str) -> object:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--teachers", type=str | list[str | nn.Module] | nn.Module | None)
    parsed = parser.parse_args(["--teachers", config])
    with constructor_errors(parser, parsed):
        return parser.instantiate_classes(parsed).teachers


@pytest.mark.parametrize(
    "config",
    [
        MISSING,
        f"[somewhere, {MISSING}]",
        f"{{class_path: tests.nets.test_construction.Wrapper, init_args: {{net: {MISSING}}}}}",
        f"[{{class_path: tests.nets.test_construction.Wrapper, init_args: {{net: {MISSING}}}}}]",
    ],
    ids=["alone", "list", "wrapper", "wrapper in a list"],
)
def test_the_innermost_constructor_says_what_is_wrong(config: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"^no weights file nowhere.pt$") as raised:
        _built(config)
    assert raised.traceback[-1].name == "load_weights"


def test_functions_in_the_place_of_classes() -> None:
    net = "{class_path: tests.nets.test_construction.download}"
    with pytest.raises(ConnectionError, match=r"^no network$"):
        _built(f"[{{class_path: tests.nets.test_construction.Wrapper, init_args: {{net: {net}}}}}]")


def test_what_can_be_built_is_built() -> None:
    assert isinstance(_built("{class_path: kd_lightning.MLP, init_args: {hidden: [8]}}"), nn.Module)
    assert _built("runs/a") == "runs/a"
