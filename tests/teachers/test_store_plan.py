"""Whether soft targets are stored, and why."""

from pathlib import Path
from typing import Any

import pytest

from kd_lightning.data.augment import Jitter
from kd_lightning.teachers.store_plan import RECORD, Decision, StoreOptions, StoreSpec, decide, store_specs
from tests.teachers.stores import ensemble_of, few_digits


def _spec(teacher: str = "a", **changes: Any) -> StoreSpec:
    spec = StoreSpec(teacher, "float32", data="d", rows="r", views=25, entries=1_500_000, dtype="float16")
    return spec._replace(**changes)


def test_auto_weighs_views_against_epochs(tmp_path: Path) -> None:
    def choose(mode: Any, epochs: float, *specs: StoreSpec, limit: float = 10.0) -> Decision:
        options = StoreOptions(folder=str(tmp_path), limit_gb=limit)
        return decide(mode, object(), epochs=epochs, specs=specs or None, classes=10, options=options)

    assert choose("auto", 80, _spec()) == (True, "25 views of each example instead of 80 passes")
    few = "storing 25 views of each example saves no pass in 20 epochs; with at most 19 it would"
    assert choose("auto", 20, _spec()) == (False, few)
    assert choose("auto", 20, _spec("a"), _spec("b")) == (False, few)
    assert choose("auto", 1, _spec())[1] == "storing 25 views of each example saves no pass in 1 epoch"
    assert choose("auto", 2, _spec(views=1))[1] == "1 view of each example instead of 2 passes"
    assert choose("auto", 2, _spec(views=1)).stored
    assert not choose("auto", 1, _spec(views=1)).stored
    assert choose("stored", 1, _spec()).stored
    assert not choose("live", 80, _spec()).stored
    assert choose("auto", 80, _spec(), limit=0.01) == (False, "30.0 MB are more than store.limit_gb, 0.01")
    assert choose("auto", 80, _spec("a"), _spec("b"), limit=0.01)[1].startswith("60.0 MB are more")
    assert "does not give its examples by row and view" in choose("auto", 80)[1]
    with pytest.raises(ValueError, match=r"can't be stored: 30.0 MB are more than store.limit_gb"):
        choose("stored", 80, _spec(), limit=0.01)
    with pytest.raises(ValueError, match="object does not give its examples by row and view"):
        choose("stored", 80)
    with pytest.raises(ValueError, match="must be auto, stored or live, got 'never'"):
        choose("never", 80, _spec())


def test_teachers_that_are_stored_do_not_count(tmp_path: Path) -> None:
    def choose(epochs: float, teachers: str, limit: float = 10.0) -> Decision:
        options = StoreOptions(folder=str(tmp_path), limit_gb=limit)
        specs = [_spec(teacher) for teacher in teachers]
        return decide("auto", object(), epochs=epochs, specs=specs, classes=10, options=options)

    begun = tmp_path / _spec("b").key / "blocks"
    begun.mkdir(parents=True)
    for teacher in "ac":
        folder = tmp_path / _spec(teacher).key
        folder.mkdir()
        (folder / RECORD).touch()
    assert choose(2, "ac") == (True, "made by an earlier run")
    assert not choose(2, "b").stored
    known = "2 of 3 teachers are stored; for the others "
    assert choose(20, "abc", limit=0.031) == (True, known + "25 views of each example instead of 20 passes of all")
    no_gain = "storing 25 views of each example saves no pass in 2 epochs; with at most 5 it would"
    assert choose(2, "abc") == (False, known + no_gain)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="limit_gb must be > 0, got 0"):
        StoreOptions(limit_gb=0)
    with pytest.raises(ValueError, match="top_k must be null, got 3"):
        StoreOptions(top_k=3)


def test_each_teacher_has_a_folder_of_its_own() -> None:
    def keys(*seeds: int, dtype: Any = "float16", **changes: Any) -> list[str]:
        specs = store_specs(ensemble_of(*seeds), few_digits(**changes), options=StoreOptions(dtype=dtype))
        assert specs is not None
        return [spec.key for spec in specs.values()]

    first, second = keys(0, 1)
    assert first != second
    assert keys(1, 0, 1) == [second, first, second]
    others: list[dict[str, Any]] = [
        {"augment": Jitter(1)},
        {"split_seed": 1},
        {"drop_classes": [3]},
        {"dtype": "float32"},
    ]
    assert len({first, *(keys(0, **change)[0] for change in others)}) == 5
    assert store_specs(ensemble_of(0), object(), options=StoreOptions()) is None
