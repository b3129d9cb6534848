"""SeededViews: a user's own data module trains, resumes and is stored as data in memory is."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)

from kd_lightning import (
    MLP,
    DistillModule,
    SeededViews,
    StoreOptions,
    TeacherModule,
    TransferData,
    WarmupCosine,
)
from kd_lightning.data.batches import Batch
from kd_lightning.data.statistics import InputStatistics
from tests.data.pictures import Pictures, draw_pictures, pixels

QUIET: dict[str, Any] = {
    "logger": False,
    "accelerator": "cpu",
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "num_sanity_val_steps": 0,
}
EXAMPLES = TensorDataset(torch.arange(40.0).unsqueeze(1), torch.arange(40) % 2)


@pytest.fixture(autouse=True)
def pictures() -> Path:
    """60 training pictures and 27 to validate on, in the test's own folder."""
    draw_pictures(Path("pictures/train"))
    draw_pictures(Path("pictures/val"), each=9)
    return Path("pictures")


class Losses(lightning.Callback):
    """Keeps each step's loss and rows, and a checkpoint after some steps."""

    def __init__(self, checkpoint_at: int = -1) -> None:
        self.checkpoint_at = checkpoint_at
        self.losses: list[float] = []
        self.rows: list[list[int]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self.losses.append(float(outputs["loss"]))
        self.rows.append(batch.indices.tolist())
        if trainer.global_step == self.checkpoint_at:
            trainer.save_checkpoint("middle.ckpt")


def _net(seed: int) -> MLP:
    torch.manual_seed(seed)
    return MLP(hidden=[8], inputs=3 * 8 * 8, classes=3, dropout_hidden=0.1)


def _student(soft_targets: Any = "live", **store: Any) -> DistillModule:
    return DistillModule(
        _net(1),
        teachers=_net(0),
        temperature=4.0,
        soft_targets=soft_targets,
        store=StoreOptions(folder="store", dtype="float32"),
        teachers_must_beat_chance=False,
        scheduler=WarmupCosine,
    )


def _seeded(workers: int = 0, views: int = 2, **loading: Any) -> SeededViews:
    return SeededViews(Pictures(workers=workers, **loading), views=views, seed=0)


def _fit(module: lightning.LightningModule, data: SeededViews, *, at: int = -1, resume: bool = False) -> Losses:
    kept = Losses(at)
    trainer = lightning.Trainer(max_epochs=3, callbacks=[kept], **QUIET)
    trainer.fit(module, data, ckpt_path="middle.ckpt" if resume else None, weights_only=True)
    return kept


@pytest.mark.slow
def test_a_run_is_the_same_stored_and_live_and_with_workers(caplog: pytest.LogCaptureFixture) -> None:
    live = _fit(_student("live"), _seeded())
    stored = _fit(_student("stored"), _seeded(workers=2, persistent_workers=True))
    assert "computing soft targets: teacher MLP on 147 examples" in caplog.text
    assert live.rows == stored.rows
    assert len(live.losses) == 12
    assert live.losses == pytest.approx(stored.losses, rel=1e-4)
    caplog.clear()
    _fit(_student("auto"), _seeded(views=2))
    assert "soft targets: stored (made by an earlier run)" in caplog.text
    assert "computing" not in caplog.text


@pytest.mark.slow
def test_a_changed_picture_and_an_added_one_get_targets_of_their_own(
    pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _fit(_student("stored"), _seeded())
    (pictures / "train/class0/004.jpg").write_bytes((pictures / "train/class2/007.jpg").read_bytes())
    changed = _fit(_student("stored"), _seeded())
    (pictures / "train/class0/999.jpg").write_bytes((pictures / "train/class2/008.jpg").read_bytes())
    added = _fit(_student("stored"), _seeded())
    assert caplog.text.count("computing soft targets") == 3
    assert added.losses == pytest.approx(_fit(_student("live"), _seeded()).losses, rel=1e-4)
    (pictures / "train/class0/999.jpg").unlink()
    assert changed.losses == pytest.approx(_fit(_student("live"), _seeded()).losses, rel=1e-4)


def test_auto_says_how_many_views_would_pay(caplog: pytest.LogCaptureFixture) -> None:
    _fit(_student("auto"), _seeded(views=5))
    assert "storing 5 views of each example saves no pass in 3 epochs; with at most 2 it would" in caplog.text


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_resumed_within_an_epoch_goes_on_bit_for_bit(workers: int) -> None:
    whole = _student("stored")
    straight = _fit(whole, _seeded(workers), at=6)  # of 4 steps each epoch
    resumed = _student("stored")
    rest = _fit(resumed, _seeded(workers), resume=True)
    assert rest.losses == straight.losses[6:]
    assert rest.rows == straight.rows[6:]
    weights = whole.net.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in resumed.net.state_dict().items())


def test_two_processes_see_the_global_batches_of_one() -> None:
    data = _seeded()
    data.setup("fit")
    whole = list(data.train_dataloader())
    shares = []
    for rank in range(2):
        loader = data.train_dataloader()
        loader._rank, loader._world_size = rank, 2
        shares.append(list(loader))
    assert len(whole) == 4
    for one, both in zip(whole, zip(*shares, strict=True), strict=True):
        for part, halves in zip(one, zip(*both, strict=True), strict=True):
            assert torch.equal(torch.stack(halves, dim=1).flatten(0, 1), pixels(part))


@pytest.mark.slow
def test_two_processes_train_as_one() -> None:
    described = {
        "model": {
            "class_path": "kd_lightning.TeacherModule",
            "init_args": {
                "net": {
                    "class_path": "kd_lightning.MLP",
                    "init_args": {"hidden": [8], "inputs": 3 * 8 * 8, "classes": 3, "dropout_hidden": 0.0},
                }
            },
        },
        "data": {
            "class_path": "kd_lightning.SeededViews",
            "init_args": {
                "data": {"class_path": "tests.data.pictures.Pictures", "init_args": {"workers": 1}},
                "views": 3,
            },
        },
        "trainer": {"max_epochs": 3, "accelerator": "cpu", "enable_progress_bar": False},
    }
    Path("pictures.yaml").write_text(yaml.safe_dump(described), encoding="utf-8")
    weights = []
    for devices in (["1"], ["2", "--trainer.strategy", "ddp_fork"]):
        run = ["--run_dir", f"runs/{devices[0]}", "--trainer.devices", *devices]
        command = [sys.executable, "-m", "kd_lightning", "fit", "--config", "pictures.yaml", *run]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr
        checkpoint = torch.load(f"runs/{devices[0]}/checkpoints/last.ckpt", weights_only=True)
        weights.append(checkpoint["state_dict"])
        assert checkpoint["kd_lightning"]["data"].keys() == {"dataset"}
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=1e-4, rtol=1e-3)


def test_rows_and_batches() -> None:
    data = _seeded(views=3)
    data.setup("fit")
    assert isinstance(data, TransferData)
    train = list(data.train_dataloader())
    val = [batch for batch in data.val_dataloader() if isinstance(batch, Batch)]
    assert torch.cat([batch.indices for batch in train]).sort().values.tolist() == list(range(60))
    assert set(torch.cat([batch.views for batch in train]).tolist()) == {0, 1, 2}
    assert torch.cat([batch.indices for batch in val]).tolist() == list(range(60, 87)) == data.val_rows.tolist()
    both = torch.cat([val[0].indices[:2], train[0].indices, val[1].indices])
    views = torch.cat([val[0].views[:2], train[0].views, val[1].views])
    expected = torch.cat([pixels(val[0].inputs)[:2], pixels(train[0].inputs), pixels(val[1].inputs)])
    assert torch.equal(pixels(data.inputs(both, views)), expected)
    assert torch.equal(pixels(data.inputs(val[0].indices, val[0].views)), pixels(val[0].inputs))
    assert data.describe() == "Pictures, 60 training and 27 validation examples, 3 seeded views"
    assert (data.unit, data.num_classes, data.class_names) == ("examples", 3, ["class0", "class1", "class2"])
    data.setup("predict")
    assert data.predict_names is not None
    assert data.predict_names[0].endswith("000.jpg")
    assert next(iter(data.predict_dataloader())).indices[:3].tolist() == [0, 1, 2]


def test_a_net_takes_the_numbers_of_the_training_pictures(caplog: pytest.LogCaptureFixture) -> None:
    module, data = TeacherModule(_net(0)), _seeded(views=3)
    with caplog.at_level("INFO"):
        _fit(module, data)
    data.setup("fit")
    shown = pixels(data.inputs(data.train_rows, torch.zeros(60, dtype=torch.int64)))
    torch.testing.assert_close(module.net[0].mean, shown.mean(dim=(0, 2, 3)))  # type: ignore[index]
    torch.testing.assert_close(module.net[0].std, shown.std(dim=(0, 2, 3), correction=0))  # type: ignore[index]
    assert "inputs are normalised by mean [" in caplog.text
    assert data.row_count == 87


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_some_rows_spread_over_all_are_measured(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _seeded(workers, views=3)
    data.setup("fit")
    monkeypatch.setattr("kd_lightning.data.replayed_rows.MEASURED_ROWS", 20)
    torch.manual_seed(0)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    mean, std = data.input_statistics()
    assert torch.equal(torch.rand(1), drawn)  # the run's own draws stay as they are
    shown = pixels(data.inputs(torch.arange(0, 60, 3), torch.zeros(20, dtype=torch.int64)))
    assert mean == pytest.approx(shown.mean(dim=(0, 2, 3)).tolist(), rel=1e-5)
    assert std == pytest.approx(shown.std(dim=(0, 2, 3), correction=0).tolist(), rel=1e-5)
    assert mean == data.input_statistics().mean
    data.teardown("fit")


def test_numbers_that_the_data_module_knows_are_taken() -> None:
    class Knows(Pictures):
        def input_statistics(self) -> InputStatistics:
            return InputStatistics(0.5, 0.25)

    assert SeededViews(Knows()).input_statistics() == (0.5, 0.25)


def test_inputs_of_several_tensors_stay_as_they_are() -> None:
    class Pairs(lightning.LightningDataModule):
        def train_dataloader(self) -> Any:
            collate = lambda rows: ([torch.rand(len(rows), 3)] * 2, torch.zeros(len(rows), dtype=torch.int64))  # noqa: E731
            return DataLoader(EXAMPLES, batch_size=4, shuffle=True, collate_fn=collate)

    assert SeededViews(Pairs()).input_statistics() == (0.0, 1.0)


class Unvalidated(Pictures):
    def val_dataloader(self) -> Any:
        return []


def test_what_the_other_run_trained_on_is_told_by_the_files(pictures: Path) -> None:
    data, elsewhere = _seeded(), Pictures()
    other = SeededViews(elsewhere)
    data.setup("fit")
    other.setup("fit")
    assert data.val_rows_seen(other.provenance()) == 0
    assert data.val_rows_seen({}) is None
    assert data.val_rows_seen({"dataset": "MNIST"}) is None
    unvalidated = SeededViews(Unvalidated())
    unvalidated.setup("fit")
    assert unvalidated.val_rows_seen({}) == 0
    elsewhere.folder = pictures / "elsewhere"
    draw_pictures(pictures / "elsewhere" / "train", each=21)
    draw_pictures(pictures / "elsewhere" / "val")
    other.setup("fit")
    assert data.val_rows_seen(other.provenance()) is None


class Whole(lightning.LightningDataModule):
    """A split in `setup` that draws from the global generator, and loaders that a test sets."""

    def __init__(self, **loading: Any) -> None:
        super().__init__()
        self.loading: dict[str, Any] = {"batch_size": 8, "shuffle": True} | loading
        self.val_loading: dict[str, Any] = {"batch_size": 8}
        self.calls: list[str] = []

    def prepare_data(self) -> None:
        self.calls.append("prepare_data")

    def setup(self, stage: str) -> None:
        assert self.trainer is not None
        self.calls.append("setup")
        self.train, self.val = random_split(EXAMPLES, [30, 10])

    def teardown(self, stage: str) -> None:
        self.calls.append("teardown")

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, **self.loading)

    def val_dataloader(self) -> Any:
        return DataLoader(self.val, **self.val_loading)

    def state_dict(self) -> dict[str, Any]:
        return {"mark": 3}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.calls.append(f"load {state_dict['mark']}")


def _tiny() -> TeacherModule:
    return TeacherModule(MLP(hidden=[2], inputs=1, classes=2))


def test_hooks_state_and_trainer_reach_the_data_module() -> None:
    whole = Whole()
    _fit(_tiny(), SeededViews(whole), at=6)
    assert whole.calls == ["prepare_data", "setup", "teardown"]
    again = Whole()
    _fit(_tiny(), SeededViews(again), resume=True)
    assert again.calls == ["prepare_data", "setup", "load 3", "teardown"]


def test_a_random_split_is_the_same_whatever_was_drawn_before() -> None:
    splits = []
    for seed in (0, 1):
        data = SeededViews(Whole())
        data.trainer = lightning.Trainer(**QUIET)
        torch.manual_seed(seed)
        data.setup("fit")
        splits.append(pixels(data.inputs(data.val_rows, torch.zeros(10, dtype=torch.int64))))
        assert torch.initial_seed() == seed
    assert torch.equal(*splits)


def test_the_last_batch_is_dropped_where_the_loader_says_so() -> None:
    dropped = _fit(_tiny(), SeededViews(Whole(drop_last=True)))
    kept = _fit(_tiny(), SeededViews(Whole()))
    assert [len(rows) for rows in dropped.rows[:4]] == [8, 8, 8, 8]
    assert [len(rows) for rows in kept.rows[:4]] == [8, 8, 8, 6]


def test_data_without_validation_and_with_unknown_labels() -> None:
    class Unlabelled(lightning.LightningDataModule):
        def train_dataloader(self) -> Any:
            return DataLoader(TensorDataset(torch.rand(12, 1), torch.full((12,), -1)), batch_size=4, shuffle=True)

    data = SeededViews(Unlabelled())
    data.setup("fit")
    assert data.val_dataloader() == []
    assert len(data.val_rows) == 0
    assert data.class_names is None
    assert data.num_classes is None
    assert data.provenance() == {}
    assert torch.cat([batch.labels for batch in data.train_dataloader()]).eq(-1).all()


def test_a_run_does_not_go_on_with_another_number_of_examples() -> None:
    _fit(_student(), _seeded(), at=6)
    draw_pictures(Path("pictures/train"), each=21)
    with pytest.raises(ValueError, match="the run began with 60 training examples, got 63; resume it with the data"):
        _fit(_student(), _seeded(), resume=True)


class Streamed(IterableDataset[Any]):
    def __iter__(self) -> Any:
        yield torch.zeros(1), 0


class OwnLoader(DataLoader[Any]):
    def __iter__(self) -> Any:
        return super().__iter__()


WRONG_LOADERS: dict[str, tuple[Any, str]] = {
    "iterable": (DataLoader(Streamed(), batch_size=2), "needs a data set with __getitem__ .* got Streamed"),
    "several": ([DataLoader(EXAMPLES)] * 2, "needs one DataLoader .*train_dataloader, got 2 loaders"),
    "named": ({"a": DataLoader(EXAMPLES)}, "needs one DataLoader .* got 1 loaders"),
    "own loader": (OwnLoader(EXAMPLES, shuffle=True), "needs one DataLoader .* got a OwnLoader"),
    "list": ([1, 2, 3], "got 3 loaders"),
    "batches": (DataLoader(EXAMPLES, batch_size=None), "can't have a batch_sampler of its own, got NoneType"),
    "own batches": (
        DataLoader(EXAMPLES, batch_sampler=BatchSampler(RandomSampler(EXAMPLES), 4, drop_last=False)),
        "can't have a batch_sampler of its own, got BatchSampler; give the loader batch_size",
    ),
    "weighted": (
        DataLoader(EXAMPLES, sampler=WeightedRandomSampler([1.0] * 40, 40)),
        "can't have a sampler of its own, got WeightedRandomSampler; give the loader shuffle=True",
    ),
    "replacement": (DataLoader(EXAMPLES, sampler=RandomSampler(EXAMPLES, replacement=True)), "got RandomSampler"),
    "part": (DataLoader(EXAMPLES, sampler=RandomSampler(EXAMPLES, num_samples=7)), "got RandomSampler"),
    "in order": (DataLoader(EXAMPLES), "got SequentialSampler; give the loader shuffle=True"),
}


@pytest.mark.parametrize("name", WRONG_LOADERS)
def test_other_training_loaders_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loader, message = WRONG_LOADERS[name]
    monkeypatch.setattr(Whole, "train_dataloader", lambda self: loader)
    with pytest.raises(ValueError, match=message):
        _fit(_tiny(), SeededViews(Whole()))


@pytest.mark.parametrize(
    ("loading", "message"),
    [
        ({"shuffle": True}, "Whole.val_dataloader can't have a sampler .* give the loader shuffle=False"),
        ({"drop_last": True}, "Whole.val_dataloader drops the last; give it drop_last=False"),
    ],
)
def test_other_validation_loaders_are_refused(loading: dict[str, Any], message: str) -> None:
    data = Whole()
    data.val_loading |= loading
    with pytest.raises(ValueError, match=message):
        _fit(_tiny(), SeededViews(data))


def test_a_list_of_one_loader_is_that_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Whole, "val_dataloader", lambda self: [DataLoader(EXAMPLES, sampler=SequentialSampler(EXAMPLES))]
    )
    data = SeededViews(Whole())
    data.trainer = lightning.Trainer(**QUIET)
    data.setup("fit")
    assert len(data.val_rows) == 40


def test_what_would_be_left_out_is_refused() -> None:
    class OnTheDevice(Whole):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch

    with pytest.raises(ValueError, match="OnTheDevice changes batches afterwards, in on_after_batch_transfer; move"):
        SeededViews(OnTheDevice())
    with pytest.raises(ValueError, match="views must be >= 1, got 0"):
        SeededViews(Whole(), views=0)
    for option in ("overfit_batches", "reload_dataloaders_every_n_epochs"):
        trainer = lightning.Trainer(max_epochs=1, **QUIET | {option: 1})
        with pytest.raises(ValueError, match=f"{option} is not supported by SeededViews"):
            trainer.fit(_tiny(), SeededViews(Whole()))


def test_a_collate_function_that_leaves_samples_out_is_refused() -> None:
    def skip_first(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        inputs, labels = zip(*(samples[1:] or samples), strict=True)
        return torch.stack(inputs), torch.stack(labels)

    with pytest.raises(ValueError, match="collate_fn must keep every sample, got 14 of 15"):
        _fit(_tiny(), SeededViews(Whole(collate_fn=skip_first)))


def test_a_file_of_logits_answers_the_same_in_validate_as_in_a_fit() -> None:
    np.save("logits.npy", np.random.default_rng(0).normal(scale=3, size=(60, 3)))
    np.save("logits.val.npy", np.random.default_rng(1).normal(scale=3, size=(27, 3)))
    module = DistillModule(_net(1), teachers="logits.npy", soft_weight=1.0, teachers_must_beat_chance=False)
    trainer = lightning.Trainer(max_epochs=1, **QUIET)
    trainer.fit(module, _seeded(views=1))
    fitted = float(trainer.callback_metrics["val/soft_loss"])
    (validated,) = lightning.Trainer(**QUIET).validate(module, _seeded(views=1), verbose=False)
    assert validated["val/soft_loss"] == pytest.approx(fitted, rel=1e-4)
