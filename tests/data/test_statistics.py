"""Means and deviations of inputs, against numpy."""

import numpy as np
import pytest
import torch

from kd_lightning import InMemoryDataModule, MNISTDataModule
from kd_lightning.data.mnist_files import read_digits
from kd_lightning.data.statistics import InputStatistics, measured
from kd_lightning.nets.digits import MNIST_MEAN, MNIST_STD


@pytest.mark.parametrize("shape", [(50, 3, 4, 5), (50, 7), (50, 2, 9)])
def test_each_channel_by_itself(shape: tuple[int, ...]) -> None:
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3 + 1000
    mean, std = measured(inputs.split(17))  # type: ignore[no-untyped-call]
    axes = (0, *range(2, len(shape)))
    np.testing.assert_allclose(mean, inputs.numpy().astype(np.float64).mean(axis=axes), rtol=1e-9)
    np.testing.assert_allclose(std, inputs.numpy().astype(np.float64).std(axis=axes), rtol=1e-6)


@pytest.mark.parametrize("shape", [(6, 1, 2, 2), (6, 1), (6,)])
def test_one_channel_gives_one_number(shape: tuple[int, ...]) -> None:
    mean, std = measured([torch.arange(6.0).view(6, *[1] * (len(shape) - 1)).expand(shape)])
    assert mean == 2.5
    assert std == pytest.approx((35 / 12) ** 0.5)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_a_constant_channel_is_not_divided_by_zero(value: float) -> None:
    inputs = torch.stack([torch.full((1000,), value), torch.arange(1000.0)], dim=1)
    mean, std = measured(inputs.split(300))  # type: ignore[no-untyped-call]
    assert mean == [pytest.approx(value), 499.5]
    assert isinstance(std, list)
    assert std[0] == 1.0
    assert std[1] == pytest.approx(288.675, rel=1e-5)


def test_integers_are_measured_too() -> None:
    assert measured([torch.tensor([[0], [4]])]) == InputStatistics(2.0, 2.0)


@pytest.mark.parametrize(("batch", "got"), [([], "none"), ([torch.tensor([1.0, torch.nan])], "no number")])
def test_what_can_not_be_measured_is_said(batch: list[torch.Tensor], got: str) -> None:
    with pytest.raises(ValueError, match=f"the training inputs must be finite numbers, got .*{got}"):
        measured(batch)


class Rows(InMemoryDataModule):
    """Ten rows, of which those of the last class are far away."""

    num_classes = 2

    def read(self) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        labels = torch.tensor([0] * 8 + [1] * 2)
        return (torch.arange(10.0) + 100 * labels, labels), (torch.zeros(1), torch.zeros(1, dtype=torch.int64))


def test_only_the_rows_that_train_are_measured() -> None:
    data = Rows(drop_classes=[1])
    data.setup("fit")
    assert data.input_statistics().mean == 3.5


def test_mnist_has_its_published_numbers() -> None:
    for dataset in ("MNIST", "mnist5k"):
        assert MNISTDataModule(dataset=dataset).input_statistics() == (MNIST_MEAN, MNIST_STD)


def test_the_siblings_of_mnist_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kd_lightning.data.mnist.read_digits", lambda *_: read_digits("mnist5k", "."))
    data = MNISTDataModule(dataset="FashionMNIST", val_size=0)
    data.setup("fit")
    pixels = data.examples("train").inputs.numpy() / 255
    mean, std = data.input_statistics()
    assert mean == pytest.approx(pixels.mean())
    assert std == pytest.approx(pixels.std())
