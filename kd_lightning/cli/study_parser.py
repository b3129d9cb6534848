"""The options of the subcommand `study`."""

import jsonargparse

from kd_lightning.cli.arguments import PROG


def study_parser() -> jsonargparse.ArgumentParser:
    """The options of `study`."""
    parser = jsonargparse.ArgumentParser(
        prog=f"{PROG} study",
        description=(
            "Train, test and compare the rows of a study, each over several seeds. Finished runs are skipped, "
            "interrupted runs resume, and several calls at once share the runs. A distill configuration in place of a "
            "study is compared with its plain student."
        ),
        exit_on_error=False,
    )
    parser.add_argument("study", help="A study file (rows: ...) or a configuration (model: ...).")
    parser.add_argument(
        "--seeds",
        type=jsonargparse.typing.PositiveInt | None,
        help="Seeds of each row, from 0; by default the row's, 5 of a configuration.",
    )
    parser.add_argument("--rows", nargs="+", help="Names of rows; all by default. Their teachers come with them.")
    parser.add_argument("--root", default="runs", help="Folder of the runs: ROOT/STUDY/ROW-SEED.")
    parser.add_argument("--output", type=str | None, help="Folder of the table's files; by default ROOT/STUDY.")
    parser.add_argument("--data_dir", type=str | None, help="Goes to each run as --data.data_dir.")
    parser.add_argument(
        "--threads",
        type=jsonargparse.typing.PositiveInt | None,
        help="Threads of a run; by default torch's own, divided by the number of processes.",
    )
    parser.add_argument(
        "--processes",
        type=jsonargparse.typing.PositiveInt,
        default=1,
        help="Processes that train at the same time, each a run. With many runs one per core does more runs an hour.",
    )
    parser.add_argument(
        "--float32",
        type=bool,
        default=False,
        help="Take float32 where a row's trainer.precision or model.teacher_precision asks for bfloat16, which some "
        "processors lack. The table and these runs are named STUDY-float32.",
    )
    parser.add_argument("--verbose", type=bool, default=False, help="Print all output of the first process's runs.")
    parser.add_argument(
        "--verdict",
        type=bool,
        default=False,
        help="Say whether distillation pays: compare a distill configuration with its plain student, with and without "
        "label smoothing, seed by seed.",
    )
    parser.add_argument("--report", type=bool, default=True, help="Write the report of all runs, with pictures.")
    return parser
