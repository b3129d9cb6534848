"""What the nets cost, and what the configurations differ in: the tables at the end of the page."""

import json
from collections.abc import Sequence
from typing import Any

from kd_lightning.reports.comparison import OF_DISTILLATION, Group, role_of
from kd_lightning.runs.files import flat

# Values about a run's place and display, which do not change its result.
NOT_COMPARED = (
    "run_dir",
    "seed_everything",
    "save_every",
    "pictures_every",
    "data.init_args.data_dir",
    "trainer.logger",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
)
# Shown wherever some have them and others do not.
_MAIN = ("model.temperature", "model.soft_weight")
_CLASS = ".class_path"
_NAMES_SHOWN = 3  # of the groups that share a net


def cost_table(groups: Sequence[Group], names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of what the nets cost, one line a net: its shortest times over all runs that have it.

    Nets of the same number of parameters and operations, measured on the same device, count as one.

    Args:
        groups: Runs that differ only by their seed.
        names: What each group is called.
    """
    nets: dict[tuple[Any, ...], tuple[dict[str, None], list[dict[str, Any]]]] = {}
    for name, members in zip(names, groups, strict=True):
        for run in members:
            where = (run.metrics.get("device"), run.metrics.get("threads"))
            for who, costs in (run.metrics.get("costs") or {}).items():
                key = (costs["parameters"], costs["flops"], costs["batch_size"], *where)
                found = nets.setdefault(key, ({}, []))
                if who != "teachers":
                    found[0][name] = None
                elif not found[0]:  # else it is there under its own name
                    count = run.metrics.get("teachers", 1)
                    found[0][f"teacher of {name}" if count == 1 else f"ensemble of {count} teachers"] = None
                found[1].append(costs)
    header = ["net", "parameters", "file", "FLOPs an example", "one example", "a batch"]
    return header, [
        [
            _listed(list(called)),
            f"{costs[0]['parameters']:,}",
            f"{costs[0]['file_bytes'] / 1e6:.2f} MB",
            f"{costs[0]['flops'] / 1e6:,.2f} M",
            f"{min(each['single_ms'] for each in costs):.3f} ms",
            f"{min(each['batch_ms'] for each in costs):.2f} ms for {costs[0]['batch_size']:,}",
        ]
        for called, costs in nets.values()
    ]


def differences(groups: Sequence[Group], names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the values that the configurations differ in, where they have them.

    Args:
        groups: Runs that differ only by their seed.
        names: What each group is called.
    """
    configs = [_compared(members) for members in groups]
    lines = []
    for key in sorted({key for config in configs for key in config}):
        values = [_text(config, key) for config in configs]
        different = set(values) if key.startswith(_MAIN) else {value for value in values if value}
        if len(different) > 1:
            lines.append([key.removesuffix(_CLASS), *values])
    return ["setting", *names], lines


def _compared(members: Group) -> dict[str, Any]:
    """The values that make a group what it is; the net has the same places in a teacher and a student."""
    unused = OF_DISTILLATION if role_of(members[0]) == "plain" else ()
    skipped = (*NOT_COMPARED, *(f"model.init_args.{name}" for name in unused))
    values = {key: value for key, value in flat(members[0].config) if not key.startswith(skipped)}
    return {_place(key): value for key, value in values.items()}


def _place(key: str) -> str:
    for argument in ("student", "net"):
        key = key.replace(f"model.init_args.{argument}.", "net.", 1)
    return key.replace("init_args.", "")


def _text(config: dict[str, Any], key: str) -> str:
    """A value for people; empty where the configuration has no such place."""
    if key in config:
        value = config[key]
        return str(value).rpartition(".")[2] if key.endswith(_CLASS) else json.dumps(value).strip('"')
    parent = key.removesuffix(_CLASS)
    return "none" if parent != key and parent in config and config[parent] is None else ""


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
