"""Report on the complete runs of a study: frequencies, one table per setting, and figures."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from common.files import write_text
from studies import complete, plan
from studies.closing import closing_lines
from studies.display import Display
from studies.execute import Job, errors_of, run_jobs
from studies.plan import Command, PlannedSetting

CompleteRuns = Mapping[PlannedSetting, Sequence[Path]]
Slots = Sequence[Mapping[str, str]]


def measure(
    runs: CompleteRuns, command: Callable[[Command], Command], slots: Slots, display: Display
) -> dict[str, str]:
    """Run frequency.py on the runs that need it, one job per setting; returns the errors by name.

    runs: the complete runs of each setting; command: turns a command of plan.py into the
    words that start it.
    """
    jobs = []
    for setting, folders in runs.items():
        missing = [run for run in folders if not complete.frequency_complete(run)]
        if missing:
            words = command(plan.frequency_command(missing))
            jobs.append(Job(f"frequency of {setting.name}", words, partial(measured, missing)))
    return errors_of(run_jobs(jobs, slots, display))


def measured(runs: Sequence[Path]) -> bool:
    """Whether the frequencies of every run are measured."""
    return all(complete.frequency_complete(run) for run in runs)


def report(
    name: str,
    runs: CompleteRuns,
    command: Callable[[Command], Command],
    slots: Slots,
    display: Display,
) -> tuple[list[str], dict[str, str]]:
    """Collect and draw what is not up to date; returns one text per setting, and errors by name.

    name: the study's; the other arguments as for `measure`. A text has the setting's table, the
    paths of its figures, and what it has shown.
    """
    present = [setting for setting, folders in runs.items() if folders]
    stale = [s for s in present if not complete.report_complete(s.history, runs[s])]
    jobs = {s: Job(f"table of {s.name}", command(plan.collect_command(s, runs[s]))) for s in stale}
    tables = run_jobs(list(jobs.values()), slots, display)
    collected = [s for s in stale if not tables[jobs[s].name].error]
    drawings = {
        s.figures: Job(f"figures of {s.name}", command(plan.plot_command([s.history], s.figures)))
        for s in collected
    }
    ready = [s for s in present if s not in stale or s in collected]
    over_rate = rate_jobs(name, ready, command)
    figures = run_jobs([*drawings.values(), *over_rate.values()], slots, display)
    texts = []
    for setting, folders in runs.items():
        text = "no table" if folders else "no complete run, so no table"
        if setting in collected:
            drawn = figures[drawings[setting.figures].name]
            text = tables[jobs[setting].name].output
            if not drawn.error:
                text += drawn.output
                # Written last: without it the next study.py collects and draws again.
                write_text(setting.figures / complete.REPORT, text)
        elif setting in ready:
            text = (setting.figures / complete.REPORT).read_text("utf-8")
        head = f"{setting.name}{left_out(setting, folders)}:"
        lines = closing_lines(setting.summary, complete.pictures(text)) if setting in ready else []
        texts.append("\n".join([head, text.rstrip(), *lines]))
    errors = errors_of(tables) | errors_of(figures)
    for folder in plan.rate_figures(name, ready):
        if folder not in over_rate or over_rate[folder].name not in errors:
            texts.append("\n".join(map(str, sorted(folder.glob("*.png")))))
    return texts, errors


def left_out(setting: PlannedSetting, folders: Sequence[Path]) -> str:
    """A remark on the runs that are not complete, empty if all are."""
    missing = [run.name for run in setting.runs if run.folder not in folders]
    return f", without {', '.join(missing)}" if missing and folders else ""


def rate_jobs(
    name: str, settings: Sequence[PlannedSetting], command: Callable[[Command], Command]
) -> dict[Path, Job]:
    """A job for each figure over the noise rate that is not up to date, by its folder."""
    jobs = {}
    for folder, group in plan.rate_figures(name, settings).items():
        histories = [setting.history for setting in group]
        if not complete.newer(folder.glob("*.png"), histories):
            words = command(plan.plot_command(histories, folder))
            jobs[folder] = Job(f"figures of {folder.name} over the rate", words)
    return jobs
