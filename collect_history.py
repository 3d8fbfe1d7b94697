"""Collect every curve of every run in one file, history.json, and print the table of the study.

    python collect_history.py                            every run under runs/
    python collect_history.py runs/cifar10-pair40        these runs only
    python collect_history.py runs/cifar10-pair40-seed*  several draws (seeds) of one data set
    python collect_history.py a/history.json runs/b      add runs to a study
    python collect_history.py --answer a/history.json b/history.json    one study per noise

history.json has every epoch of every run; summary.json and summary.csv have the table: means over
seeds, with intervals. They go into the folder of the runs, runs/<data set>/, or beside --out.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from common.command_line import Parser, add_runs_arguments, integer, run_script
from common.errors import UserError
from common.files import write_json


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    parser = Parser(__doc__)
    add_runs_arguments(parser)
    add = parser.add_argument
    add("--out", type=Path, help="file to write; by default history.json in the runs' own folder")
    add("--summary", default="summary", help="name of the table's files beside it")
    add(
        "--digits",
        type=integer(3),
        help="round to this many significant digits; by default no rounding",
    )
    add(
        "--answer",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="compare studies of several noises, one history.json per noise; writes answer.json, "
        "or --out",
    )
    return parser.parse_args(argv)


def collect_history(args: Namespace) -> None:
    """Write the history and the table of the runs that the flags name."""
    from analysis import history_file, statistics, table

    if args.answer:
        compare_noises(args.answer, args.out or Path("answer.json"))
        return
    folders = args.run or [args.runs]
    history, notes = history_file.collect(folders)
    out = args.out or history_file.default_path(folders)
    history_file.write_history(out, history, args.digits)
    for note in notes:
        print(f"collect_history.py: {note}", file=sys.stderr)
    print(*map(table.run_line, history["runs"]), sep="\n")
    print(f"written: {out}")
    try:
        rows = statistics.summarize(history)
    except UserError as error:
        print(f"no summary over seeds: {error}")
        return
    paths = table.write_summary(out.parent, args.summary, history["data"], rows)
    print(table.as_text(rows), table.filter_line(history), sep="\n")
    print(f"written: {', '.join(map(str, paths))}")


def compare_noises(files: Sequence[Path], out: Path) -> None:
    """Write the answer over the studies' history.json, and print it as tables."""
    from analysis import answer, history_file, table

    rows = answer.answer([history_file.read_history_file(path) for path in files])
    write_json(out, {"rows": rows})
    print(table.answer_text(rows))
    print(f"written: {out}")


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    return run_script("collect_history.py", lambda: collect_history(args))


if __name__ == "__main__":
    sys.exit(main())
