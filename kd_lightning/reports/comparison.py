"""The runs compared: which is the teacher, which the plain student, and how many errors distillation saves."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import mean
from typing import Any, Literal, NamedTuple

from kd_lightning.reports.run_folders import Run
from kd_lightning.runs.files import flat
from kd_lightning.runs.texts import noun_for

Role = Literal["teacher", "plain", "other", "distilled"]
Group = Sequence[Run]  # runs that differ only by their seed
ORDER: tuple[Role, ...] = ("teacher", "plain", "other", "distilled")  # of the table's rows

# Arguments of DistillModule that only do something where there is a soft loss.
OF_DISTILLATION = (
    "teachers",
    "temperature",
    "soft_loss",
    "feature_losses",
    "averaging",
    "teacher_weights",
    "soft_targets",
    "store",
    "teacher_precision",
    "teachers_must_beat_chance",
)
_NORMAL_95 = 1.959964  # the normal distribution's 97.5 % point


class Saving(NamedTuple):
    """Errors that a distilled student saves against the plain one.

    Attributes:
        against: The plain student's group.
        mean: Errors saved, on average over seeds; negative where there are more errors.
        low: Lower end of the 95 % confidence interval, None where there is none.
        high: Upper end.
    """

    against: Group
    mean: float
    low: float | None
    high: float | None

    @property
    def may_be_chance(self) -> bool:
        """Whether the interval contains 0; False where there is none."""
        return self.low is not None and self.high is not None and self.low <= 0 <= self.high


def role_of(run: Run) -> Role:
    """What a run's net is in a comparison, by its configuration."""
    arguments = model_arguments(run.config)
    if "soft_weight" in arguments:
        learns = bool(arguments["soft_weight"]) or bool(arguments.get("feature_losses"))
        return "distilled" if learns else "plain"
    model = run.config.get("model")
    class_path = str(model.get("class_path")) if isinstance(model, dict) else ""
    return "teacher" if class_path.endswith("TeacherModule") else "other"


def plain_student_of(distilled: Group, groups: Sequence[Group]) -> Group | None:
    """The group that a distilled student is compared with, tested on the same examples; None where there is none.

    That is the plain student of the same net whose configuration differs least; without one, the same net trained by a
    TeacherModule that is not its teacher.

    Args:
        distilled: Its runs.
        groups: All groups of the report.
    """
    net, tested = _net(distilled[0].config), _test_data(distilled)
    alike = [group for group in groups if _net(group[0].config) == net and tested and _test_data(group) == tested]
    plain = [group for group in alike if role_of(group[0]) == "plain"]
    taught_by = str(model_arguments(distilled[0].config).get("teachers"))
    others = [group for group in alike if role_of(group[0]) == "teacher"]
    others = [group for group in others if not any(run.name in taught_by for run in group)]
    return min(plain or others, key=lambda group: _distance(group[0].config, distilled[0].config), default=None)


def saving(plain: Group, distilled: Group) -> Saving:
    """The errors saved, with an interval over seeds, or, for one seed, over the test examples.

    Args:
        plain: Runs that were tested on the same examples.
        distilled: The distilled student's.
    """
    pairs = list(_pairs(plain, distilled))
    if not pairs:
        return Saving(plain, mean(_errors(plain)) - mean(_errors(distilled)), None, None)
    if len(pairs) == 1:
        (before, after), low, high = pairs[0], None, None
        saved = float(_error_count(before) - _error_count(after))
        rows = [run.details.get("tables", {}).get("wrong_rows") for run in (before, after)]
        if None not in rows:
            half = _half_width_over_examples(set(rows[0]), set(rows[1]), before.metrics["test"]["examples"])
            low, high = saved - half, saved + half
        return Saving(plain, saved, low, high)
    from kd_lightning.reports.verdict import paired  # scipy takes half a second to import

    found = paired(*([_measured(run) for run in side] for side in zip(*pairs, strict=True)))
    return Saving(plain, found.mean, found.low, found.high)


def findings(groups: Sequence[Group], names: Sequence[str]) -> list[str]:
    """What is odd about the results, a line each; nothing where distillation did what it should.

    Args:
        groups: All groups of the report.
        names: What each is called.
    """
    lines: dict[str, None] = {}
    name_of = {id(group): name for group, name in zip(groups, names, strict=True)}
    for group in groups:
        if role_of(group[0]) == "distilled" and _errors(group):
            plain = plain_student_of(group, groups)
            lines |= dict.fromkeys(_lines(group, name_of[id(group)], plain, name_of.get(id(plain), "")))
    return list(lines)


def _lines(distilled: Group, name: str, plain: Group | None, plain_name: str) -> Iterator[str]:
    errors = mean(_errors(distilled))
    tested = [run.metrics for run in distilled if run.metrics.get("test", {}).get("teacher_errors") is not None]
    teacher = mean(metrics["test"]["teacher_errors"] for metrics in tested) if tested else None
    several = bool(tested) and tested[0].get("teachers", 1) > 1
    makes = "the teachers together make" if several else "the teacher makes"
    longer = f"train the {'teachers' if several else 'teacher'} for longer"
    if plain is not None:
        baseline, saved = mean(_errors(plain)), saving(plain, distilled)
        surely_helped = saved.low is not None and saved.low > 0
        if teacher is not None and teacher >= baseline and not surely_helped:
            than = _no_fewer(teacher, plain, plain_name)
            yield f"{makes} {than}: nothing to teach; {longer}"
            return
        if errors >= baseline:
            chance = ", which may be chance" if errors > baseline and saved.may_be_chance else ""
            line = f"{name} makes {_no_fewer(errors, plain, plain_name)}{chance}"
            if teacher is not None:
                line += f", though {makes} {_count(teacher)}; try another temperature or soft_weight, or more epochs"
            yield line
            return
    if teacher is not None and errors <= teacher:
        yield (
            f"{name} makes {_count(errors)} {noun_for(errors, 'error')} and {makes} {_count(teacher)}: "
            f"nothing is left to learn; {longer}"
        )


def _no_fewer(errors: float, plain: Group, name: str) -> str:
    baseline = mean(_errors(plain))
    more, than = ("as many", "as") if errors == baseline else ("more", "than")
    over = f", mean of {len(_errors(plain))}" if len(_errors(plain)) > 1 else ""
    return f"{more} errors ({_count(errors)}) {than} the plain student, {name} ({_count(baseline)}{over})"


def _half_width_over_examples(before: set[int], after: set[int], examples: int) -> float:
    """Half of a 95 % interval of the errors saved, over test examples that both nets were tested on.

    Source: Agresti, "Categorical Data Analysis", the difference of dependent proportions.
    """
    gained, lost = len(before - after), len(after - before)
    return _NORMAL_95 * math.sqrt(gained + lost - (gained - lost) ** 2 / examples)


def _pairs(plain: Group, distilled: Group) -> Iterator[tuple[Run, Run]]:
    """Tested runs with the same seed; two single runs belong together whatever their seeds."""
    before, after = ([run for run in group if run.metrics] for group in (plain, distilled))
    if len(before) == len(after) == 1:
        yield before[0], after[0]
        return
    by_seed = {run.seed: run for run in before if run.seed is not None}
    yield from ((by_seed[run.seed], run) for run in after if run.seed in by_seed)


def _measured(run: Run) -> dict[str, Any]:
    return {"seed": run.seed, "errors": _error_count(run), "wrong": run.details.get("tables", {}).get("wrong_rows")}


def _error_count(run: Run) -> int:
    count: int = run.metrics["test"]["errors"]
    return count


def _errors(group: Group) -> list[int]:
    return [_error_count(run) for run in group if run.metrics]


def _count(errors: float) -> str:
    return f"{errors:,.0f}" if float(errors).is_integer() else f"{errors:,.1f}"


def _test_data(group: Group) -> list[Any]:
    """What a group was tested on; empty where nothing was."""
    tested = next((run.metrics for run in group if run.metrics), None)
    return [] if tested is None else [tested.get("data"), tested["test"]["examples"], tested.get("unit")]


def model_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the configured module; empty where there are none."""
    model = config.get("model")
    arguments = model.get("init_args") if isinstance(model, dict) else None
    return arguments if isinstance(arguments, dict) else {}


def _net(config: Mapping[str, Any]) -> Any:  # Any: a configuration's value
    arguments = model_arguments(config)
    return arguments.get("student", arguments.get("net"))


def _distance(one: dict[str, Any], other: dict[str, Any]) -> int:
    """How many values of two configurations differ."""
    first, second = dict(flat(one)), dict(flat(other))
    return sum(first.get(key) != second.get(key) for key in first.keys() | second.keys())
