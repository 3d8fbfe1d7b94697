"""Run a whole study: make its missing data sets, runs, frequencies, tables and figures."""

import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common.errors import UserError
from common.run_folder import read_history
from studies import complete, devices, execute, plan, reports
from studies.display import Display, Progress, progress_of
from studies.execute import Job
from studies.flags import parse_flags
from studies.plan import PlannedData, PlannedRun, PlannedSetting


@dataclass(frozen=True)
class Study:
    """The settings of a study, the flags as the scripts parse them, and the scripts' folder.

    data_flags: by data-set file; run_flags: by run folder; train_defaults: train.py's own.
    """

    name: str
    settings: tuple[PlannedSetting, ...]
    scripts: Path
    data_flags: Mapping[Path, dict]
    run_flags: Mapping[Path, dict]
    train_defaults: dict

    def command(self, command: plan.Command) -> tuple[str, ...]:
        """The words that start a script with this Python."""
        return (sys.executable, str(self.scripts / command[0]), *command[1:])

    def data_complete(self, data: PlannedData) -> bool:
        """Whether the data set exists. Raises UserError if the file was made with other flags."""
        return complete.data_complete(data.path, self.data_flags[data.path])

    def run_complete(self, run: PlannedRun, digest: str | None) -> bool:
        """Whether the run has all its epochs. Raises UserError if it has other settings."""
        asked = self.run_flags[run.folder]
        return complete.run_complete(run.folder, asked, self.train_defaults, digest)


def prepare(request: plan.Request, scripts: Path) -> Study:
    """Plan a study and let the scripts check its flags. Raises UserError if one refuses them."""
    settings = plan.plan_study(request)
    data, runs = plan.data_sets(settings), plan.all_runs(settings)
    data_flags = parse_flags(scripts / "generate.py", [d.flags for d in data])
    defaults, *run_flags = parse_flags(scripts / "train.py", [(), *(run.flags for run in runs)])
    return Study(
        request.name,
        settings,
        scripts,
        dict(zip((d.path for d in data), data_flags, strict=True)),
        dict(zip((run.folder for run in runs), run_flags, strict=True)),
        defaults,
    )


def print_list(study: Study) -> int:
    """Print one shell line per run; returns exit status 0."""
    folder = Path("") if study.scripts == Path.cwd() else study.scripts
    python, runs = python_command(), plan.all_runs(study.settings)
    lines = [plan.shell_line(run, python, folder) for run in runs]
    print(*lines, sep="\n")
    if any(set(line) & set("'\"\\") for line in lines):
        note = "a value is quoted; xargs keeps the quotes with -d '\\n'"
        print(f"study.py: --list: {note}", file=sys.stderr)
    return 0


def python_command() -> str:
    """`python` where that is this Python, else its path."""
    python = shutil.which("python")
    # Compared by its folder: in a virtual environment it is a link to a Python outside.
    same = python is not None and Path(python).parent == Path(sys.executable).parent
    return "python" if same else sys.executable


def run_study(study: Study, jobs: int | None) -> int:
    """Make what is missing of a study and print its tables; returns the exit status.

    1 if something failed; what does not depend on it is made. Raises UserError before anything is
    started if a data set or a run exists with other settings.
    """
    on_cpu = all(flags["device"] == "cpu" for flags in study.run_flags.values())
    gpus = [] if on_cpu else devices.visible_gpus(os.environ)
    cores = devices.usable_cores()
    jobs = jobs or devices.default_jobs(gpus, cores)
    slots = devices.slot_environments(jobs, gpus, cores, os.environ)
    # One frequency.py takes all cores; with several GPUs each has its own.
    filter_slots = devices.slot_environments(len(gpus) or 1, gpus, cores, os.environ)
    display = Display()
    display.event(overview(study, jobs, gpus, cores))
    errors = make_data(study, slots, display)
    errors |= train(study, slots, display)
    complete_runs = {
        setting: [r.folder for r in setting.runs if r.data.path.exists() and r.name not in errors]
        for setting in study.settings
    }
    errors |= reports.measure(complete_runs, study.command, filter_slots, display)
    texts, more = reports.report(study.name, complete_runs, study.command, slots, display)
    for text in texts:
        print(f"\n{text.rstrip()}", flush=True)
    errors |= more
    for name, error in errors.items():
        print(f"study.py: {name}: {error}", file=sys.stderr)
    return 1 if errors else 0


def overview(study: Study, jobs: int, gpus: Sequence[str], cores: int) -> str:
    """The parts of the study and which of them are complete, in one line.

    Raises UserError if a data set or a run exists with other settings.
    """
    data, runs = plan.data_sets(study.settings), plan.all_runs(study.settings)
    ready = sum([study.data_complete(one) for one in data])
    digests = {one.path: complete.data_digest(one.path) for one in data}
    done = sum([study.run_complete(run, digests[run.data.path]) for run in runs])
    place = f"{len(gpus)} GPU{'s' * (len(gpus) > 1)}" if gpus else f"{cores} cores"
    return (
        f"study.py: {done} of {len(runs)} runs and {ready} of {len(data)} data sets are complete; "
        f"{jobs} at a time on {place}"
    )


def make_data(study: Study, slots: Sequence[Mapping[str, str]], display: Display) -> dict[str, str]:
    """Make the data sets that are missing; returns the errors by name."""
    jobs = [
        Job(
            str(data.path),
            study.command(plan.generate_command(data)),
            partial(study.data_complete, data),
        )
        for data in plan.data_sets(study.settings)
        if not study.data_complete(data)
    ]
    return execute.errors_of(execute.run_jobs(jobs, slots, display))


def train(study: Study, slots: Sequence[Mapping[str, str]], display: Display) -> dict[str, str]:
    """Train the incomplete runs whose data set exists; returns the errors by name."""
    data, runs = plan.data_sets(study.settings), plan.all_runs(study.settings)
    digests = {one.path: complete.data_digest(one.path) for one in data}
    jobs = [
        Job(
            run.name,
            study.command(plan.train_command(run)),
            partial(study.run_complete, run, digests[run.data.path]),
            partial(read_progress, run.folder, study.run_flags[run.folder]["epochs"]),
            run.folder / "failed.log",
        )
        for run in runs
        if digests[run.data.path] and not study.run_complete(run, digests[run.data.path])
    ]
    return execute.errors_of(execute.run_jobs(jobs, slots, display))


def read_progress(run: Path, epochs: int) -> Progress | None:
    """How far a run is, by its history.jsonl; None before its first epoch."""
    try:
        records, _ = read_history(run)
        age = max(0.0, time.time() - (run / "history.jsonl").stat().st_mtime)
        return progress_of(records, epochs, age)
    except (UserError, OSError, LookupError):
        return None
