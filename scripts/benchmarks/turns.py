"""Epochs of the loops, in turns: the main table, widths and batches, growth, a GPU, and what stored teachers cost."""

import random
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from scripts.benchmarks.loops import EXAMPLES, Bench


class Case(NamedTuple):
    """One thing to time.

    Attributes:
        name: What it is called in the table.
        width: Units of each of the student's two hidden layers.
        batch: Examples per step.
        teachers: How many teach, 0 for the plain student.
        examples: Examples of an epoch.
        run: Does one epoch and returns its wall time, seconds.
    """

    name: str
    width: int
    batch: int
    teachers: int
    examples: int
    run: Callable[[], float]


def time_in_turns(cases: list[Case], repeats: int) -> list[dict[str, Any]]:
    """Run all cases in turns and give their medians.

    Each turn has its own order, since what ran just before leaves its mark: a processor's heat, memory in pieces.
    """
    seconds: list[list[float]] = [[] for _ in cases]
    for repeat in range(repeats):
        order = list(zip(cases, seconds, strict=True))
        random.Random(repeat).shuffle(order)  # noqa: S311  # not for secrets
        for case, kept in order:
            kept.append(case.run())
            print(f"{repeat + 1}/{repeats} {case.name}, {case.width}/{case.batch}: {kept[-1]:.2f} s", flush=True)
    return [
        {
            **{name: value for name, value in case._asdict().items() if name != "run"},
            "turns": repeats,
            "seconds_per_epoch": statistics.median(kept),
            "fastest": min(kept),
            "examples_per_second": case.examples / statistics.median(kept),
            "all_seconds": kept,
        }
        for case, kept in zip(cases, seconds, strict=True)
    ]


def step_cases(bench: Bench, width: int, batch: int, *, usual_steps: int) -> list[Case]:
    """The main table: floor, plain, distilled from one and ten teachers, and the usual loop."""
    count = len(list((bench.root / "teachers").iterdir()))
    live, stored = ["--model.soft_targets", "live"], ["--model.soft_targets", "stored"]
    fast = [*stored, "--trainer.precision", "bf16-mixed"]

    def case(name: str, teachers: int, run: Callable[[], float], size: int = batch) -> Case:
        return Case(name, width, size, teachers, EXAMPLES, run)

    cases = [
        case("hand-written loop, plain", 0, partial(bench.hand_written, width, batch)),
        case("fit, plain", 0, partial(bench.fit, width, batch, 0)),
    ]
    for teachers in (1, count):
        usual = partial(bench.usual, width, batch, bench.ensemble(teachers), usual_steps)
        cases += [
            case("fit, distilled, stored", teachers, partial(bench.fit, width, batch, teachers, *stored)),
            case("fit, distilled, live", teachers, partial(bench.fit, width, batch, teachers, *live)),
            case("usual loop", teachers, usual),
        ]
    cases.append(case("fit, distilled, stored, bf16-mixed", 1, partial(bench.fit, width, 512, 1, *fast), 512))
    return cases


def frame_cases(bench: Bench, widths: list[int], batches: list[int]) -> list[Case]:
    """Plain and distilled fit against the floor, over widths and batches."""
    cases = []
    for width in widths:
        for batch in batches:
            floor = partial(bench.hand_written, width, batch)
            cases.append(Case("hand-written loop, plain", width, batch, 0, EXAMPLES, floor))
            cases += _plain_and_stored(bench, bench.fit, width, batch)
    return cases


def _plain_and_stored(bench: Bench, fit: Callable[..., float], width: int, batch: int) -> list[Case]:
    """The plain student and the one that learns from all teachers' stored logits, by one of the bench's fits."""
    count = len(list((bench.root / "teachers").iterdir()))
    stored = partial(fit, width, batch, count, "--model.soft_targets", "stored")
    return [
        Case("fit, plain", width, batch, 0, EXAMPLES, partial(fit, width, batch, 0)),
        Case("fit, distilled, stored", width, batch, count, EXAMPLES, stored),
    ]


def gpu_cases(bench: Bench, *, usual_steps: int) -> list[Case]:
    """Floor, plain and distilled fit with all images on the GPU, and the usual loop."""
    count = len(list((bench.root / "teachers").iterdir()))
    resident = ["--data.device_resident", "true"]
    cases = []
    for width, batch in ((800, 128), (800, 1024)):
        fit = partial(bench.fit, width, batch)
        usual = partial(bench.usual, width, batch, bench.ensemble(count), usual_steps)
        runs = [
            ("hand-written loop, plain", 0, partial(bench.hand_written, width, batch)),
            ("fit, plain", 0, partial(fit, 0, *resident)),
            ("fit, plain, images copied to the GPU", 0, partial(fit, 0)),
            ("fit, distilled, stored", count, partial(fit, count, *resident, "--model.soft_targets", "stored")),
            ("fit, distilled, live", count, partial(fit, count, *resident, "--model.soft_targets", "live")),
            ("usual loop", count, usual),
        ]
        cases += [Case(name, width, batch, teachers, EXAMPLES, run) for name, teachers, run in runs]
    return cases


def growth_cases(bench: Bench) -> list[Case]:
    """How an epoch's time grows with the teachers and the examples."""
    count = len(list((bench.root / "teachers").iterdir()))
    cases = []
    for mode in ("stored", "live"):
        flags = ["--model.soft_targets", mode]
        cases += [
            Case(f"fit, distilled, {mode}", 800, 128, n, EXAMPLES, partial(bench.fit, 800, 128, n, *flags))
            for n in sorted({1, 2, 5, count} & set(range(count + 1)))
        ]
    cases += [
        Case(
            "fit, distilled, stored",
            800,
            128,
            count,
            n,
            partial(bench.fit, 800, 128, count, "--model.soft_targets", "stored", examples=n),
        )
        for n in (10_000, 30_000, 60_000)
    ]
    return cases


def stored_cost(bench: Bench, repeats: int) -> dict[str, float]:
    """What the stored teachers add to an epoch of the plain student, at two widths and batch 128.

    Each fit is a process of its own, as users run it. The ratio is the median of those of each turn, in which all ran
    one after the other.
    """
    widths = (800, 300)
    cases = [case for width in widths for case in _plain_and_stored(bench, bench.fit_alone, width, 128)]
    rows = time_in_turns(cases, repeats)
    figures = {}
    for width in widths:
        plain, stored = (row["all_seconds"] for row in rows if row["width"] == width)
        figures[f"2x{width}, plain, s per epoch"] = statistics.median(plain)
        figures[f"2x{width}, {cases[1].teachers} stored teachers, s per epoch"] = statistics.median(stored)
        ratios = [slow / fast for fast, slow in zip(plain, stored, strict=True)]
        figures[f"2x{width}, ratio"] = statistics.median(ratios)
    return figures
