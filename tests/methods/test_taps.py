"""Feature losses see the activations that they name, and leave the nets as they were."""

import pytest
import torch
from torch import nn

from kd_lightning import MLP, AdaptedNet, Hints
from kd_lightning.methods.taps import FeatureTerms, Taps

IMAGES = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def test_a_tap_keeps_a_modules_output_until_it_is_removed() -> None:
    net = MLP(hidden=[6, 4])
    taps = Taps(net, ["3", "3"])
    net(IMAGES)
    torch.testing.assert_close(taps.outputs["3"], nn.Sequential(*list(net)[:4])(IMAGES))
    taps.remove()
    net(IMAGES)
    assert taps.outputs == {}
    assert all(not module._forward_hooks for module in net.modules())


def test_a_path_that_names_no_module_is_told_what_is_near() -> None:
    net = nn.Sequential()
    net.add_module("layer1", nn.Linear(2, 2))
    net.add_module("head", nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"no module 'layer2' in Sequential; there are 'layer1' \(Linear\)"):
        Taps(net, ["layer2"])
    with pytest.raises(ValueError, match=r"no module 'x' in Sequential; there are 'layer1' \(Linear\), 'head'"):
        Taps(net, ["x"])


def test_paths_are_those_of_the_net_inside_an_adapter() -> None:
    net = MLP(hidden=[6, 4])
    adapted = AdaptedNet(AdaptedNet(net, inputs=nn.Identity()), classes=[0, 1])
    taps = Taps(adapted, ["3"])
    adapted(IMAGES)
    torch.testing.assert_close(taps.outputs["3"], nn.Sequential(*list(net)[:4])(IMAGES))
    with pytest.raises(ValueError, match=r"no module 'inputs' in MLP"):
        Taps(adapted, ["inputs"])


def test_a_module_must_give_a_tensor() -> None:
    net = nn.Sequential(nn.LSTM(4, 4))
    Taps(net, ["0"])
    with pytest.raises(ValueError, match="module '0', a LSTM, must give a tensor to be compared, got tuple"):
        net(torch.zeros(2, 4))


def test_hints_worked_by_hand() -> None:
    hints = Hints(student="a", teacher="b")
    hints.build(torch.zeros(1, 2), torch.zeros(1, 3))
    assert isinstance(hints.regressor, nn.Linear)
    with torch.no_grad():
        hints.regressor.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        hints.regressor.bias.zero_()
    loss = hints(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0, 0.0]]))  # differences 0, 2 and 3
    assert loss.item() == pytest.approx((4 + 9) / 3)


def test_hints_take_pictures_of_another_size() -> None:
    hints = Hints(student="a", teacher="b")
    hints.build(torch.zeros(1, 2, 8, 8), torch.zeros(1, 5, 4, 4))
    assert hints(torch.rand(3, 2, 8, 8), torch.rand(3, 5, 4, 4)).ndim == 0
    with pytest.raises(ValueError, match=r"got \(1, 2\) at 'a' of the student and \(1, 5, 4, 4\) at 'b'"):
        hints.build(torch.zeros(1, 2), torch.zeros(1, 5, 4, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_hints_of_another_type_are_those_of_the_regressors(dtype: torch.dtype) -> None:
    hints = Hints(student="a", teacher="b")
    hints.build(torch.zeros(1, 2), torch.zeros(1, 3))
    student, teacher = torch.rand(4, 2).to(dtype).requires_grad_(), torch.rand(4, 3)
    value = hints(student, teacher)
    torch.testing.assert_close(value, hints(student.detach().float(), teacher))
    assert torch.autograd.grad(value, student)[0].dtype == dtype


def test_hints_under_autocast_are_computed_in_its_type() -> None:
    hints = Hints(student="a", teacher="b")
    hints.build(torch.zeros(1, 2), torch.zeros(1, 3))
    seen = []
    hints.regressor.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        value = hints(torch.rand(4, 2, dtype=torch.bfloat16), torch.rand(4, 3))
    assert seen == [torch.bfloat16]
    assert value.dtype == torch.float32


def test_terms_have_names_weights_and_layers_of_their_own() -> None:
    student, teacher = MLP(hidden=[6, 4]), MLP(hidden=[8, 7])
    terms = FeatureTerms([Hints(student="3", teacher="3", weight=2.0), Hints(student="5", teacher="5", weight=0.5)])
    terms.build(student, teacher, IMAGES[:1])
    student(IMAGES), teacher(IMAGES)
    weighted, values = terms()
    assert list(values) == ["hints", "hints_2"]
    torch.testing.assert_close(weighted, 2 * values["hints"] + 0.5 * values["hints_2"])
    assert {tuple(p.shape) for p in terms.parameters()} == {(8, 6), (8,), (7, 4), (7,)}
    terms.detach()
    with pytest.raises(RuntimeError, match="watch no nets"):
        terms()


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"weight of Hints must be >= 0, got -1"):
        Hints(student="3", teacher="3", weight=-1)
