"""Collect every curve of every run in history.json, and say what the study has found.

    python collect_history.py                            every run under runs/
    python collect_history.py runs/cifar10-pair40*       several seeds, noises or settings
    python collect_history.py a/history.json runs/b      add runs to a collected study
    python collect_history.py a/history.json --readme README.md     write the tables marked in it

history.json has every epoch of every complete run; results.json, beside it, every mean and
difference. They go into the folder of the runs, runs/<data set>/, or runs/ if there are several.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from common.command_line import (
    Parser,
    UserError,
    add_runs_arguments,
    end_quietly,
    integer,
    run_script,
)

if __name__ == "__main__":
    end_quietly()  # on Ctrl-C, while Python imports the rest

from common.files import read_json, without_nan, write_json, write_text

REMEDY = "use --out OTHER/history.json"


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    parser = Parser(__doc__)
    add_runs_arguments(parser, "runs, folders of runs, or history.json files")
    add = parser.add_argument
    add("--out", type=Path, help="FOLDER/history.json; by default in the folder of the runs")
    add("--digits", type=integer(4), help="significant digits of curves; by default all")
    add("--all", action="store_true", help="print every table, not only the answer")
    add("--readme", nargs="+", type=Path, default=[], help="files whose marked tables to write")
    return parser.parse_args(argv)


def collect_history(args: Namespace) -> None:
    """Write history.json, results.json and the tables of --readme, and print the answer."""
    from analysis import history, tables

    sources = args.run or [args.runs]
    runs, notes = history.collect(sources)
    out = args.out or default_path(sources)
    before = runs_before(out)  # refuses a path of another name
    results = out.with_name("results.json")
    shared, left = history.share_deltas(runs)
    content = tables.results(history.by_noise(shared))
    texts = {}
    for path in args.readme:
        try:
            study = out.absolute().parent.name
            texts[path] = tables.with_blocks(path.read_text("utf-8"), content, study)
        except ValueError as error:  # UserError, or bytes that are no text
            raise UserError(f"--readme {path}: {error}") from error
    if lost := sorted(set(before) - {run.name for run in runs}):
        notes.append(f"{history.counted(lost)}: in {out} before, and no longer")
    for note in [*notes, *left, *tables.missing(content)]:
        print(f"collect_history.py: {UserError(note)}", file=sys.stderr)
    written = [results, *texts]
    if args.digits or [out.resolve()] != [source.resolve() for source in sources]:
        history.write_history(out, runs, args.digits)
        written.insert(0, out)
    write_json(results, without_nan(content))
    for path, text in texts.items():
        write_text(path, text)
    print(*(tables.long_text if args.all else tables.short_text)(content), sep="\n")
    more = f"all tables: collect_history.py {out} --all; figures: plot.py {out}"
    print(f"written: {', '.join(map(str, written))}; {more}")


def default_path(sources: Sequence[Path]) -> Path:
    """The one history.json that is named, or history.json in the folder of all runs."""
    from common.run_folder import find_runs

    files = [source for source in sources if source.is_file()]
    if len(files) == 1:
        return files[0]
    places = files + find_runs([source for source in sources if source not in files])
    folders = {place.absolute().parent for place in places}
    common = Path(os.path.commonpath(folders))
    if not folders <= {common, *(common / folder.name for folder in folders)}:
        raise UserError("the runs are in several places; name the file to write with --out")
    return Path(os.path.relpath(common)) / "history.json"


def runs_before(out: Path) -> list[str]:
    """The names of the runs in an earlier `out`.

    Raises UserError if it, or results.json beside it, is not a file that this script has made.
    """
    from analysis.history import read_history

    if out.name != "history.json":  # results.json beside it belongs to it alone
        raise UserError(f"curves go to a history.json, not to {out}; name one with --out")
    results = out.with_name("results.json")
    if results.exists() and not {"noises", "differences"} <= read_json(results, REMEDY).keys():
        raise UserError(f"{results} was not made by collect_history.py; {REMEDY}")
    try:
        return [run.name for run in read_history(out)] if out.exists() else []
    except UserError as error:
        raise UserError(f"{out} exists with other content; {REMEDY}") from error


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    return run_script("collect_history.py", lambda: collect_history(args))


if __name__ == "__main__":
    sys.exit(main())
