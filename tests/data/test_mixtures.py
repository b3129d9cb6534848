"""A mixture depends on the seed, the view and the row, and has no label; stored and live teachers see the very same."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from kd_lightning import Augment, Batch, DistillModule, InMemoryDataModule, Jitter, Mixtures, StoreOptions

ROWS, VIEWS = 60, 6


class Pictures(InMemoryDataModule):
    """Small pictures as bytes, each with its row in its pixels."""

    num_classes = 3

    def read(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        made = torch.Generator().manual_seed(0)
        pictures = torch.randint(256, (ROWS, 1, 5, 5), dtype=torch.uint8, generator=made)
        labels = torch.arange(ROWS) % 3
        return (pictures, labels), (pictures[:8], labels[:8])


def data(augment: Mixtures | None, **options: Any) -> Pictures:
    made = Pictures(batch_size=16, augment=augment, **options)
    made.setup("fit")
    return made


def all_views(of: Pictures) -> tuple[Tensor, Tensor]:
    rows = of.train_rows.repeat(of.view_count)
    return rows, torch.arange(of.view_count).repeat_interleave(len(of.train_rows))


def test_a_mixture_is_of_two_examples_that_train() -> None:
    mixtures = Mixtures(VIEWS, seed=3)
    some = data(mixtures, val_size=15, drop_classes=[2])
    plain = some.examples("train").inputs.float() / 255
    rows, views = all_views(some)
    partners = mixtures.partners(rows, views, some.train_rows)
    assert torch.isin(partners, some.train_rows).all()
    assert not (partners == rows).any()
    shown = some.inputs(rows, views)
    assert isinstance(shown, Tensor)
    assert torch.equal(shown[views == 0], plain[some.train_rows])
    shares = []
    for view in range(1, VIEWS):
        here = views == view
        own, other = plain[rows[here]], plain[partners[here]]
        share = ((shown[here] - own) / (other - own))[own != other]
        assert float(share.std()) < 1e-4  # one share for each view
        shares.append(round(float(share.mean()), 4))
        assert torch.equal(partners[here].sort().values, some.train_rows)  # each example once
    assert len(set(shares)) == VIEWS - 1
    assert 0 < min(shares) < max(shares) < 1
    # Neighbours in the file don't meet neighbours.
    steps = partners[views == 1].diff()
    assert len(set(steps.tolist())) > 5


def test_a_mixture_is_the_same_whenever_it_is_made() -> None:
    first, again, other = (data(Mixtures(VIEWS, noise=0.1, seed=seed), val_size=15) for seed in (0, 0, 1))
    rows, views = all_views(first)
    shown = first.inputs(rows, views)
    assert isinstance(shown, Tensor)
    single = [first.inputs(row, view) for row, view in zip(torch.split(rows, 1), torch.split(views, 1), strict=True)]
    assert torch.equal(shown, torch.cat([each for each in single if isinstance(each, Tensor)]))
    backwards = again.inputs(rows.flip(0), views.flip(0))
    assert isinstance(backwards, Tensor)
    assert torch.equal(shown, backwards.flip(0))
    assert first.fingerprint() == again.fingerprint()
    others = {other.fingerprint(), data(Mixtures(VIEWS, noise=0.2), val_size=15).fingerprint()}
    assert len({first.fingerprint(), *others, data(None, val_size=15).fingerprint()}) == 4


def test_noise_is_on_mixtures_only_and_of_the_given_size() -> None:
    clear, noisy = data(Mixtures(500)), data(Mixtures(500, noise=0.25))
    rows, views = all_views(clear)
    plain, shown = clear.inputs(rows, views), noisy.inputs(rows, views)
    assert isinstance(plain, Tensor)
    assert isinstance(shown, Tensor)
    noise = shown - plain
    assert not noise[views == 0].any()
    assert float(noise[views > 0].std()) == pytest.approx(0.25, rel=0.02)
    assert float(noise[views > 0].mean()) == pytest.approx(0.0, abs=0.01)


class Squares(Augment):
    """Squares each pixel in all views but view 0."""

    view_count = VIEWS

    def transform(self, images: Tensor, views: Tensor) -> Tensor:
        return images.square()


def test_the_mixture_is_transformed_not_its_pictures() -> None:
    clear, squared = data(Mixtures(VIEWS), val_size=15), data(Mixtures(VIEWS, transform=Squares()), val_size=15)
    rows, views = all_views(clear)
    plain, shown = clear.inputs(rows, views), squared.inputs(rows, views)
    assert isinstance(plain, Tensor)
    assert isinstance(shown, Tensor)
    assert torch.equal(shown[views == 0], plain[views == 0])
    assert torch.equal(shown[views > 0], plain[views > 0].square())
    assert clear.fingerprint() != squared.fingerprint()


def test_a_mixture_is_transformed_by_the_view_of_its_number() -> None:
    jitter = Jitter(1)
    clear, moved = data(Mixtures(VIEWS), val_size=15), data(Mixtures(VIEWS, transform=jitter), val_size=15)
    rows, views = all_views(clear)
    plain, shown = clear.inputs(rows, views), moved.inputs(rows, views)
    assert isinstance(plain, Tensor)
    assert isinstance(shown, Tensor)
    assert torch.equal(shown, jitter(plain, views))


class Sees(DistillModule):
    """Keeps what it trains on, and what the teachers say of it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(student=nn.Sequential(nn.Flatten(), nn.Linear(25, 3)), soft_weight=0.5, **options)
        self.seen: list[tuple[Batch, Tensor]] = []

    def losses(self, batch: Batch, logits: Tensor) -> dict[str, Tensor]:
        if self.trainer.training and self.source is not None:
            targets = self.source(batch, 2.0)
            assert targets is not None
            self.seen.append((batch, targets.log_probs))
        return super().losses(batch, logits)


@pytest.mark.parametrize("transform", [None, Jitter(1)])
def test_stored_and_live_teachers_answer_to_the_very_mixture(transform: Augment | None) -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(25, 3))
    answers: dict[str, list[tuple[Batch, Tensor]]] = {}
    for how in ("stored", "live"):
        options: dict[str, Any] = {"soft_targets": how, "store": StoreOptions("store", dtype="float32")}
        module = Sees(teachers=teacher, teachers_must_beat_chance=False, **options)
        trainer = Trainer(
            max_epochs=3,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator="cpu",
        )
        trainer.fit(module, data(Mixtures(VIEWS, noise=0.1, transform=transform), val_size=15, seed=0))
        answers[how] = module.seen
    assert len(answers["live"]) == 9
    for (batch, stored), (same, live) in zip(answers["stored"], answers["live"], strict=True):
        assert torch.equal(batch.inputs, same.inputs)  # type: ignore[arg-type]
        torch.testing.assert_close(stored, live)
        assert bool((batch.labels[batch.views > 0] == -1).all())
        assert bool((batch.labels[batch.views == 0] == batch.indices[batch.views == 0] % 3).all())
        with torch.no_grad():
            torch.testing.assert_close(live, (teacher(batch.inputs) / 2).log_softmax(dim=1))


def test_what_can_not_be_mixed_is_refused() -> None:
    with pytest.raises(ValueError, match="mixtures views must be >= 2, got 1"):
        Mixtures(1)
    for noise in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"mixtures noise must be finite and >= 0, got"):
            Mixtures(noise=noise)
    with pytest.raises(
        ValueError, match="mixtures views must not exceed the 9 views of their transform, got 10; lower views"
    ):
        Mixtures(10, transform=Jitter(1))
    rows = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(
        ValueError, match=r"transforms pictures, .*, got inputs of 2 dimensions; leave its transform out"
    ):
        Mixtures(VIEWS, transform=Jitter(1)).mix(torch.zeros(2, 3), torch.zeros(2, 3), rows, rows)
    for inputs in (torch.zeros(2, 3, dtype=torch.int64), (torch.zeros(2, 3), torch.zeros(2, 3))):
        with pytest.raises(ValueError, match="Mixtures needs inputs of one floating tensor"):
            Mixtures().mix(inputs, inputs, rows, rows)
    plain = DistillModule(student=nn.Sequential(nn.Flatten(), nn.Linear(25, 3)), soft_weight=0.0)
    trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu")
    with pytest.raises(ValueError, match="augment is Mixtures, which have no label, and there are no teachers"):
        trainer.fit(plain, data(Mixtures()))
