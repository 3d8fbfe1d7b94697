"""Collect every curve of every run in one file, history.json, and find curves in it.

    python collect_history.py                          every run under runs/
    python collect_history.py runs/cifar10-pair40      these runs only

history.json holds `data` (the data set's name, digest, noise, rates and sizes) and `runs`, a list
of {run, loss, network, seed, settings, history: {name: [epoch]}, frequency: frequency.json's
content less its inner products, or null}. All runs are of one data set.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import runs
import summary

DROPPED = ("data", "runs", "run", "resume", "overwrite")  # flags that do not shape the numbers


def collect(paths: Sequence[Path]) -> tuple[dict, list[str]]:
    """The content of history.json for the runs at or below `paths`, and notes for the user.

    Raises RunError if there is no run, one is unreadable, or they are of different data sets.
    """
    collected, notes = [], []
    data, first = None, None
    for run in runs.find_runs(paths):
        config = runs.read_config(run)
        records, note = runs.read_history(run)
        data, first = data or config["data"], first or run
        if config["data"]["digest"] != data["digest"]:
            raise runs.RunError(
                f"{first} and {run} are of two data sets; name the runs of one, "
                f"such as {first.parent}"
            )
        notes += [note] if note else []
        collected.append(
            {
                "run": run.name,
                "loss": config["loss"],
                "network": config["network"],
                "seed": config["flags"]["seed"],
                "settings": {k: v for k, v in config["flags"].items() if k not in DROPPED},
                "history": {key: [record[key] for record in records] for key in records[0]},
                "frequency": read_frequency(run / "frequency.json"),
            }
        )
    return {"data": data, "runs": collected}, notes


def read_frequency(path: Path) -> dict | None:
    """A run's frequency.json less its inner products; None if there is none yet."""
    if not path.exists():
        return None
    content = runs.read_json(path, "make it again with frequency.py")
    for part in ("test", "probe"):
        if part not in content:
            raise runs.RunError(f"{path}: it has no `{part}`; make it again with frequency.py")
        content[part].pop("products", None)
    return content


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS,  # so that an error is one line
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("run", nargs="*", type=Path, help="runs, or folders of them (default all of --runs)")
    add("--runs", type=Path, default=Path("runs"), help="the runs' folder (default runs)")
    add("--out", type=Path, default=Path("history.json"), help="default history.json")
    add("--summary", default="summary", help="name of the table beside it (default summary)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        history, notes = collect(args.run or [args.runs])
        runs.write_json(args.out, history)
    except (runs.RunError, OSError) as error:
        print(f"collect_history.py: {error}", file=sys.stderr)
        return 2
    for note in notes:
        print(f"collect_history.py: {note}", file=sys.stderr)
    print(*map(summary.run_line, history["runs"]), sep="\n")
    print(f"written: {args.out}")
    try:
        rows = summary.summarize(history)
        paths = [args.out.with_name(f"{args.summary}.{kind}") for kind in ("json", "csv")]
        runs.write_json(paths[0], {"data": history["data"], "rows": rows})
        runs.write_text(paths[1], summary.as_csv(rows))
        print(summary.as_text(rows), f"written: {paths[0]}, {paths[1]}", sep="\n")
    except runs.RunError as error:
        print(f"no summary over seeds: {error}")
    except OSError as error:
        print(f"collect_history.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
