"""Does distillation help: intervals, McNemar's test and the words."""

import pytest
from scipy import stats

from kd_lightning.reports.verdict import Verdict, judge, paired, verdict_lines


def _runs(*errors: int, wrong: list[list[int]] | None = None) -> list[dict[str, object]]:
    found = [{"seed": seed, "errors": count} for seed, count in enumerate(errors)]
    return [run | ({} if wrong is None else {"wrong": wrong[seed]}) for seed, run in enumerate(found)]


def _verdict(plain: list[int], distilled: list[int], *, apart: bool = True) -> Verdict:
    """A verdict on runs whose wrong rows are others (`apart`), or the same as far as possible."""
    first = 10_000 if apart else 0
    return judge(
        _runs(*plain, wrong=[list(range(count)) for count in plain]),
        _runs(*distilled, wrong=[list(range(first, first + count)) for count in distilled]),
    )


def test_the_interval_is_students() -> None:
    found = paired(_runs(150, 144, 147), _runs(100, 104, 96))
    assert found.saved == (50, 40, 51)
    assert found.mean == 47
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 2, loc=47, scale=stats.sem([50, 40, 51])))


def test_a_hand_worked_mcnemar() -> None:
    # One pair of answers lost, five gained: 2 * (1 + 6) / 64.
    found = paired(_runs(6, wrong=[[0, 1, 2, 3, 4, 5]]), _runs(2, wrong=[[0, 9]]))
    assert (found.lost, found.gained) == (1, 5)
    assert found.p == pytest.approx(2 * 7 / 64)
    assert paired(_runs(1, wrong=[[3]]), _runs(1, wrong=[[3]])).p == 1


def test_runs_that_do_not_say_what_they_got_wrong_have_no_test() -> None:
    found = paired(_runs(5, 6), _runs(4, 4, wrong=[[1], [2]]))
    assert (found.lost, found.gained, found.p) == (None, None, None)


def test_a_clear_gain_helps() -> None:
    verdict = _verdict([150, 144, 147], [100, 104, 96])
    assert verdict.word == "helps"
    assert verdict.more_seeds is None


def test_a_harm_does_not_help() -> None:
    assert _verdict([100, 104, 96], [150, 144, 147]).word == "does not help"


def test_a_sure_gain_that_is_too_small_does_not_help() -> None:
    assert _verdict([100] * 5, [99, 100, 101, 99, 101]).word == "does not help"


def test_few_seeds_of_a_small_difference_do_not_tell() -> None:
    verdict = _verdict([150, 140], [141, 137])
    assert verdict.word == "can't tell"
    assert verdict.more_seeds is not None
    # With that many more of the same mean and deviation, the interval just leaves 0.
    seeds = 2 + verdict.more_seeds
    half = [stats.t.ppf(0.975, n - 1) * stats.tstd([9, 3]) / n**0.5 for n in (seeds - 1, seeds)]
    assert half[0] >= 6 > half[1]


def test_one_seed_does_not_tell() -> None:
    verdict = _verdict([150], [50])
    assert verdict.word == "can't tell"
    assert "one seed" in verdict.reason


def test_too_few_test_examples_do_not_tell_however_many_seeds() -> None:
    # Each seed saves one error and gains it on an example of its own: seeds agree, the answers hardly do.
    verdict = judge(
        _runs(3, 3, 3, wrong=[[0, 1, 2]] * 3), _runs(2, 2, 2, wrong=[[0, 1]] * 3), _runs(3, 3, 3, wrong=[[0, 1, 2]] * 3)
    )
    assert verdict.word == "can't tell"
    assert "too few" in verdict.reason
    assert verdict.more_seeds is None


def test_other_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"same seeds, got \[0, 1\] and \[0\]"):
        paired(_runs(1, 2), _runs(1))


def test_it_is_said_in_lines() -> None:
    plain, distilled = _runs(150, 144, 147), _runs(100, 104, 96)
    lines = verdict_lines(judge(plain, distilled, distilled))
    assert lines[0].startswith("Distillation here: helps. 31.9 to 62.1 errors saved (95 % interval, 3 seeds)")
    assert lines[1] == "Against the plain student: 47.0 errors saved, 95 % interval 31.9 to 62.1."
    assert lines[2] == "Against label smoothing: 0.0 errors saved, 95 % interval -0.7 to 0.7."


def test_harm_is_said_as_more_errors() -> None:
    lines = verdict_lines(_verdict([100, 104, 96], [150, 144, 147]))
    assert lines[0] == (
        "Distillation here: does not help. 31.9 to 62.1 more errors (95 % interval, 3 seeds): it does harm."
    )
    assert lines[1] == (
        "Against the plain student: 47.0 more errors, 95 % interval 31.9 to 62.1; 300 answers gained, 441 lost, "
        "McNemar's p = 2.5e-07 over all seeds' answers."
    )


def test_seeds_that_agree_leave_the_doubt_of_rounding() -> None:
    found = paired(_runs(30, 31), _runs(20, 21))
    half = stats.t.ppf(0.975, 1) * (1 / 12) ** 0.5 / 2**0.5  # rounding to whole numbers has a variance of 1/12
    assert (found.low, found.high) == pytest.approx((10 - half, 10 + half))
