"""Which parts of a study are complete on disk: read from the files themselves, not from markers."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis.frequency_file import read_frequency
from analysis.history_file import read_history_file
from common.errors import UserError
from common.flags import fixed_on_resume
from common.logits import logits_length
from common.run_folder import FREQUENCY, LOGITS, read_config, read_history
from dataset.data_file import file_digest
from dataset.make import DataSettings, exists_already

# If this flag is not given (None), train.py chooses it by the device.
OPEN = "amp"
REPORT = "report.txt"


def data_complete(path: Path, asked: dict) -> bool:
    """Whether the data set exists. Raises UserError if the file was made with other flags.

    asked: the flags of generate.py by name.
    """
    try:
        return exists_already(path, DataSettings(**asked))
    except UserError as error:
        # The remedy of generate.py, in study.py's flags.
        line = str(error).replace("file with --out", "study with --name")
        raise UserError(line) from None


def data_digest(path: Path) -> str | None:
    """The digest of a data set, as its runs have it in config.json; None if there is no file."""
    if not path.exists():
        return None
    return file_digest(path)


def run_difference(config: dict, asked: dict, defaults: dict, digest: str | None) -> str | None:
    """How a run differs from what train.py's flags ask for; None if it matches.

    config: of config.json; asked, defaults: flags by name. A run without a flag has its default.
    digest: of the data set, None if it is not known yet.
    """
    if digest not in (None, config["data"]["digest"]):
        return "another data set"
    actual = {**defaults, **config["flags"]}
    for name, value in fixed_on_resume(asked).items():
        if actual[name] != value and not (name == OPEN and value is None):
            return f"{name} = {actual[name]}, not {value}"
    return None


def check_run(run: Path, asked: dict, defaults: dict, digest: str | None) -> None:
    """Raise UserError with the remedy if the run exists and is not what the flags ask for."""
    if not (run / "config.json").exists():
        return
    config = read_config(run)
    try:
        difference = run_difference(config, asked, defaults, digest)
    except (LookupError, TypeError):
        raise UserError(f"{run}: config.json is damaged; remove the folder") from None
    if difference:
        raise UserError(
            f"{run} exists with {difference}; repeat the flags of that run, remove the folder, or "
            "name another study with --name"
        )


def epochs_on_disk(run: Path) -> int:
    """The number of epochs that are in the run's history and logits; 0 if a file is missing."""
    try:
        records, _ = read_history(run)
        return min(len(records), *(logits_length(run / name) for name in LOGITS))
    except UserError:
        return 0


def run_complete(run: Path, asked: dict, defaults: dict, digest: str | None) -> bool:
    """Whether the run exists, with these flags and this data set, and has all its epochs.

    Raises UserError if it exists with other settings.
    """
    check_run(run, asked, defaults, digest)
    return (run / "config.json").exists() and epochs_on_disk(run) == asked["epochs"]


def frequency_complete(run: Path) -> bool:
    """Whether the run's frequency.json is of its data set and covers all its epochs."""
    try:
        content = read_frequency(run) or {}
        digest = read_config(run)["data"]["digest"]
    except UserError:
        return False
    sections = [part for part in content.values() if isinstance(part, dict) and "outputs" in part]
    lengths = {len(values) for section in sections for values in section["outputs"].values()}
    return content.get("digest") == digest and lengths == {epochs_on_disk(run)}


def newer(paths: Iterable[Path], inputs: Iterable[Path]) -> bool:
    """Whether the files exist and all were written after the last input."""
    try:
        oldest = min(path.stat().st_mtime_ns for path in paths)
        return oldest >= max(path.stat().st_mtime_ns for path in inputs)
    except (FileNotFoundError, ValueError):  # one is missing, or none is named
        return False


def pictures(report: str) -> list[Path]:
    """The figures that plot.py named in its output."""
    return [Path(line) for line in report.splitlines() if line.endswith(".png")]


def report_complete(history: Path, folders: Sequence[Path]) -> bool:
    """Whether the table and the figures show these runs in their present state.

    history.json has to name the runs and be newer than their files, and the figures that the
    report names have to be newer than history.json.
    """
    report = history.parent / REPORT
    inputs = [run / name for run in folders for name in ("history.jsonl", FREQUENCY)]
    if not newer([history], inputs) or not newer([report], [history]):
        return False
    runs = read_history_file(history)["runs"]
    if sorted(Path(run["run"]).name for run in runs) != sorted(run.name for run in folders):
        return False
    return newer(pictures(report.read_text("utf-8")), [history])
