"""Does distillation help? Runs of plain, label-smoothed and distilled students with the same seeds -> a verdict."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any, Literal

from scipy import stats

from kd_lightning.runs.texts import counted

Word = Literal["helps", "does not help", "can't tell"]

LEVEL = 0.95  # of all confidence intervals; 1 - LEVEL is the largest p that counts
_LEVEL_TEXT = f"{100 * LEVEL:.0f} %"
# A gain of less than this share of the plain student's errors counts as none.
SMALLEST_GAIN = 0.05
_MOST_SEEDS = 1000  # beyond, nobody trains so many
# Of the errors saved: counts are whole numbers, so seeds that agree have at least the deviation of rounding.
_LEAST_DEVIATION = 12**-0.5


@dataclass(frozen=True)
class Paired:
    """The errors that one student saves against another one with the same seeds and the same test examples.

    Attributes:
        saved: Errors saved by each seed.
        mean: Mean of `saved`.
        low: Lower end of the mean's confidence interval over seeds (Student's t); None with a single seed.
        high: Upper end.
        lost: Answers, over all seeds, that were right before and are wrong now; None if the runs do not record which
            examples they got wrong.
        gained: Answers that were wrong before and are right now.
        p: McNemar's exact test on these two counts: the chance of so uneven a split if neither student were better.
            It takes the answers of all seeds as independent.
    """

    saved: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None
    lost: int | None
    gained: int | None
    p: float | None


@dataclass(frozen=True)
class Verdict:
    """Whether distillation helps.

    Attributes:
        word: The verdict.
        reason: Why, for people.
        more_seeds: How many more seeds would be needed to tell; None where the verdict is clear or none would help.
        against_plain: The distilled student against the plain one; the verdict rests on this.
        against_smoothed: The distilled student against the one with label smoothing; None where there is none.
    """

    word: Word
    reason: str
    more_seeds: int | None
    against_plain: Paired
    against_smoothed: Paired | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def judge(
    plain: Sequence[Mapping[str, Any]],
    distilled: Sequence[Mapping[str, Any]],
    smoothed: Sequence[Mapping[str, Any]] | None = None,
) -> Verdict:
    """Decide whether the distilled student makes fewer errors than the plain one.

    It *helps* if the confidence interval of the errors saved lies above 0 and McNemar's test agrees. The interval
    stands for other seeds, the test for other examples. It *does not help* if the interval lies below `SMALLEST_GAIN`
    of the plain student's errors. Else there are too few seeds or examples to tell.

    Source of the test: McNemar 1947, "Note on the sampling error of the difference between correlated proportions or
    percentages"; here exact, by the binomial distribution.

    Args:
        plain: For each run, in the order of its seed: `seed`, `errors` and, where known, `wrong`: the rows that the
            student got wrong.
        distilled: The same seeds.
        smoothed: The same seeds.

    Raises:
        ValueError: If the runs' seeds differ, or there is none.
    """
    found = paired(plain, distilled)
    smallest = SMALLEST_GAIN * mean(run["errors"] for run in plain)
    word, reason, more = _decide(found, smallest)
    return Verdict(word, reason, more, found, None if smoothed is None else paired(smoothed, distilled))


def paired(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> Paired:
    """Compare two students; arguments and errors as in `judge`."""
    seeds = [run["seed"] for run in before]
    if not seeds or seeds != [run["seed"] for run in after]:
        raise ValueError(
            f"a paired comparison needs runs with the same seeds, got {seeds} and {[run['seed'] for run in after]}"
        )
    saved = tuple(float(a["errors"] - b["errors"]) for a, b in zip(before, after, strict=True))
    half = _half_width(_deviation(saved), len(saved)) if len(saved) > 1 else None
    lost = gained = p = None
    if all(run.get("wrong") is not None for run in (*before, *after)):
        pairs = [(set(a["wrong"]), set(b["wrong"])) for a, b in zip(before, after, strict=True)]
        lost = sum(len(now - then) for then, now in pairs)
        gained = sum(len(then - now) for then, now in pairs)
        p = float(stats.binomtest(gained, lost + gained).pvalue) if lost + gained else 1.0
    middle = mean(saved)
    return Paired(
        saved, middle, None if half is None else middle - half, None if half is None else middle + half, lost, gained, p
    )


def _deviation(saved: Sequence[float]) -> float:
    return max(stdev(saved), _LEAST_DEVIATION)


def _half_width(deviation: float, count: int) -> float:
    """Half of a mean's confidence interval."""
    return float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * deviation / math.sqrt(count)


def _decide(found: Paired, smallest: float) -> tuple[Word, str, int | None]:
    if found.low is None or found.high is None:
        return "can't tell", "one seed says nothing about the next; at least 2 are needed, 5 are better", 4
    low, high, errors = _shown(found)
    interval = f"{low:.1f} to {high:.1f} {errors} ({_LEVEL_TEXT} interval, {len(found.saved)} seeds)"
    if found.low > 0:
        if found.p is None or found.p < 1 - LEVEL:
            return "helps", interval, None
        reason = f"{interval}, but the test examples are too few: McNemar's p = {found.p:.2g}"
        return "can't tell", reason, None
    if found.high < smallest:
        if found.high < 0:
            return "does not help", f"{interval}: it does harm", None
        share = f"{100 * SMALLEST_GAIN:.0f} % of the plain student's"
        return "does not help", f"{interval}; fewer than {smallest:.1f} errors saved, {share}, are no gain", None
    return "can't tell", f"{interval} holds 0 and a gain worth having", _more_seeds(found, smallest)


def _more_seeds(found: Paired, smallest: float) -> int | None:
    """How many more seeds would tell, if mean and deviation stay as they are; None beyond reason."""
    deviation, count = _deviation(found.saved), len(found.saved)
    for seeds in range(count + 1, _MOST_SEEDS):
        half = _half_width(deviation, seeds)
        if found.mean - half > 0 or found.mean + half < smallest:
            return seeds - count
    return None


def verdict_lines(verdict: Verdict) -> list[str]:
    """The verdict for people, a line each."""
    lines = [f"Distillation here: {verdict.word}. {verdict.reason[0].upper()}{verdict.reason[1:]}."]
    if verdict.more_seeds is not None:
        lines.append(f"To tell, about {counted(verdict.more_seeds, 'more seed')} would be needed.")
    lines.append(f"Against the plain student: {_sentence(verdict.against_plain)}.")
    if verdict.against_smoothed is not None:
        lines.append(f"Against label smoothing: {_sentence(verdict.against_smoothed)}.")
    return lines


def _sentence(found: Paired) -> str:
    low, high, errors = _shown(found)
    interval = "" if low is None else f", {_LEVEL_TEXT} interval {low:.1f} to {high:.1f}"
    counts = "" if found.p is None else f"; {found.gained:,} answers gained, {found.lost:,} lost"
    test = "" if found.p is None else f", McNemar's p = {found.p:.2g} over all seeds' answers"
    return f"{abs(found.mean):.1f} {errors}{interval}{counts}{test}"


def _shown(found: Paired) -> tuple[float | None, float | None, str]:
    """The interval's ends and what it counts: errors saved or, where the student makes more, more errors."""
    if found.mean >= 0:
        return found.low, found.high, "errors saved"
    if found.low is None or found.high is None:
        return None, None, "more errors"
    return -found.high, -found.low, "more errors"
