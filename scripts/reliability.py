"""Disturb real runs at random moments and count what is lost; writes docs/results/reliability.json and .md.

    python -m scripts.reliability                                   # all, 108 trials, half an hour on two cores
    python -m scripts.reliability --only '[kill-fit]' --times 3     # one kind of trial, three times

A trial starts a command in processes of its own, disturbs it at a random moment, gives the same command again, and
compares the result with that of a command that nothing disturbed: scripts/trial.py and, what is tried,
scripts/trial_kinds.py. The moments come from the seed. Each trial is kept when it is done: an interrupted call
continues.
"""

import hashlib
import json
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

import jsonargparse

from kd_lightning.runs.files import write_atomically, write_json
from scripts.benchmark import machine
from scripts.faults import ROOT
from scripts.trial import TooLateError, Trial, Undisturbed
from scripts.trial_kinds import EXIT_CODES, KINDS

TRIES = 10  # random moments that are drawn until one is before the command's end
SHOWN = 3  # different losses of a kind that the table names


def try_once(name: str, number: int, seed: int, undisturbed: Undisturbed, folder: Path) -> dict[str, Any] | None:
    """Do a trial and return what was lost; then its folder stays. None if the command always ended before."""
    chance = random.Random(f"{seed} {name} {number}")  # noqa: S311  # moments, no secrets
    for _ in range(TRIES):
        started = time.monotonic()
        shutil.rmtree(folder, ignore_errors=True)
        trial = Trial(name, number, folder, undisturbed, chance)
        try:
            KINDS[name].run(trial)
        except TooLateError:
            continue
        except Exception as error:  # whatever reading the remains raises is a loss
            trial.lost.append(f"{type(error).__name__}: {error}")
        if not trial.lost:
            shutil.rmtree(folder)
        seconds = round(time.monotonic() - started, 1)
        lost, left = ([text.replace(str(folder), "FOLDER") for text in texts] for texts in (trial.lost, trial.left))
        how = ", ".join(trial.how)
        return {"kind": name, "number": number, "how": how, "lost": lost, "left": left, "seconds": seconds}
    return None


def hear_signals_in_children() -> None:
    """Let the commands get the signals that this process ignores, as it does under nohup or in the background.

    What is ignored stays so in a child; a handler does not.
    """
    for signum in EXIT_CODES:
        if signal.getsignal(signum) == signal.SIG_IGN:
            signal.signal(signum, lambda *_: None)


def table(trials: list[dict[str, Any]]) -> Iterator[str]:
    """The lines of a Markdown table, one for each kind."""
    yield "| what was done | times | what was compared | times that something was lost | what was lost |"
    yield "| --- | ---: | --- | ---: | --- |"
    for name, each in KINDS.items():
        mine = [trial for trial in trials if trial["kind"] == name]
        if mine:
            lost = sum(bool(trial["lost"]) for trial in mine)
            yield f"| {each.what} | {len(mine)} | {each.compared} | {lost} | {_losses(mine)} |"


def _losses(trials: list[dict[str, Any]]) -> str:
    counted = Counter(text for trial in trials for text in dict.fromkeys(trial["lost"])).most_common()
    texts = [f"{text} ({count}x)" for text, count in counted[:SHOWN]] or ["nothing"]
    texts += ["and more"] * (len(counted) > SHOWN)
    left = Counter(text for trial in trials for text in dict.fromkeys(trial["left"])).most_common(SHOWN)
    texts += [f"left behind: {text} ({count}x)" for text, count in left]
    return "; ".join(texts).replace("|", "/").replace("\n", " ")


def summary(results: dict[str, Any]) -> str:
    """The content of reliability.md."""
    on, trials = results["machine"], results["trials"]
    lost = sum(bool(trial["lost"]) for trial in trials)
    text = f"Written by `{results['command']}`: {len(trials)} trials, of which {lost} lost something. "
    text += f"On {on['processor']}, torch {on['torch']}, Lightning {on['lightning']}, Python {on['python']}, "
    return "\n".join([f"{text}{on['measured_at'][:10]}.", "", *table(trials), ""])


def run(
    only: list[str] | None = None,
    times: int | None = None,
    seed: int = 0,
    workers: int = 2,
    output: str = "docs/results",
    work: str = "runs/reliability",
    overwrite: bool = False,
) -> None:
    """Try, and write reliability.json and reliability.md after each trial.

    Args:
        only: Kinds of trials; all by default.
        times: How often each kind is tried; by default its own number.
        seed: Where the random moments come from.
        workers: Trials at one time, >= 1.
        output: Folder of the two files.
        work: Folder of the runs; a trial that loses something leaves its own there.
        overwrite: Forget the trials that were done before.

    Raises:
        ValueError: If a kind is unknown, or the trials there are of other code or another machine.
    """
    if unknown := set(only or []) - KINDS.keys():
        raise ValueError(f"no kind {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    hear_signals_in_children()
    file, folder = Path(output).absolute() / "reliability.json", Path(work).absolute()
    command = "python -m scripts.reliability" + (f" --seed {seed}" if seed else "")
    results: dict[str, Any] = {"command": command, "seed": seed, "code": _code(), "machine": machine(), "trials": []}
    if file.is_file() and not overwrite:
        results = _results_to_go_on_with(file, results)
    done = {(trial["kind"], trial["number"]) for trial in results["trials"]}
    wanted = [(name, n) for name in only or KINDS for n in range(KINDS[name].times if times is None else times)]
    shutil.rmtree(folder / "undisturbed", ignore_errors=True)
    undisturbed = Undisturbed(folder / "undisturbed")
    pool = ThreadPoolExecutor(workers)
    # Each kind's first trial comes before any second, so that a call that is cut short has tried them all.
    jobs = {
        pool.submit(try_once, name, number, seed, undisturbed, folder / f"{name}-{number}"): (name, number)
        for name, number in sorted(set(wanted) - done, key=lambda job: (job[1], list(KINDS).index(job[0])))
    }
    try:
        for job in as_completed(jobs):
            trial = job.result()
            if trial is None:
                print(f"{jobs[job]} could not be tried: it was through before its random moment, {TRIES} times")
                continue
            results["trials"].append(trial)
            results["trials"].sort(key=lambda each: (list(KINDS).index(each["kind"]), each["number"]))
            write_json(file, results)
            write_atomically(file.with_suffix(".md"), partial(_write, summary(results)))
            print(f"{trial['kind']} {trial['number']}, {trial['how']}: {trial['lost'] or 'nothing lost'}", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)  # after those that are under way
    print(f"\n{file.with_suffix('.md').read_text(encoding='utf-8')}")


def _write(text: str, part: Path) -> None:
    part.write_text(text, encoding="utf-8")


def _results_to_go_on_with(file: Path, now: dict[str, Any]) -> dict[str, Any]:
    before: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    same = all(before[name] == now[name] for name in ("seed", "code"))
    machines = [{**each["machine"], "measured_at": None} for each in (before, now)]
    if not same or machines[0] != machines[1]:
        raise ValueError(
            f"{file} holds trials of another seed, machine or state of the code; "
            "start again with --overwrite true, or choose another --output"
        )
    return before


def _code() -> str:
    """Hash of the package's code."""
    files = sorted((ROOT / "kd_lightning").rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


if __name__ == "__main__":
    try:
        jsonargparse.auto_cli(run)
    except ValueError as error:
        sys.exit(f"error: {error}")
