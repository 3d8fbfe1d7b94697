"""What a study consists of: its data sets, runs and commands, as functions of its settings.

Nothing here touches the disk. A command is a tuple of words that begins with a script's name.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from common.errors import UserError
from studies.names import has_rate, loss_slug, noise_label, split_noise

Command = tuple[str, ...]

# The flags that study.py sets for each data set and run, and what to use instead.
GENERATE_RESERVED = {
    "--dataset": "use --data",
    "--noise": "use --noise of study.py",
    "--rate": "use --rate of study.py",
    "--seed": "use --seeds or --data-seed",
    "--out": "use --name",
    "--if-missing": "leave it out",
}
TRAIN_RESERVED = {
    "--loss": "use --loss of study.py",
    "--dis": "use --loss of study.py",
    "--data": "use --data of study.py",
    "--seed": "use --seeds",
    "--run": "use --name",
    "--runs": "leave it out; runs go to runs/",
    "--resume": "leave it out; runs always continue where they stopped",
    "--overwrite": "leave it out; delete the run's folder to start it again",
    "--evaluate": "leave it out",
}


@dataclass(frozen=True)
class Request:
    """What the user asks for; `generate` and `train` are further flags of those scripts."""

    data: str
    name: str
    noises: tuple[str, ...]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    losses: tuple[str, ...]
    generate: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    data_seed: int | None = None


@dataclass(frozen=True)
class PlannedData:
    """A data set: its file and the flags of generate.py that make it."""

    path: Path
    flags: tuple[str, ...]


@dataclass(frozen=True)
class PlannedRun:
    """A run: its data set, its folder and the flags of train.py that make it."""

    data: PlannedData
    folder: Path
    flags: tuple[str, ...]

    @property
    def name(self) -> str:
        """<data set>/<run>, for the user."""
        return f"{self.folder.parent.name}/{self.folder.name}"


@dataclass(frozen=True)
class PlannedSetting:
    """One noise at one rate: all its runs share a table and figures."""

    name: str
    noise: str
    rate: float | None
    runs: tuple[PlannedRun, ...]

    @property
    def figures(self) -> Path:
        return Path("figures") / self.name

    @property
    def history(self) -> Path:
        return self.figures / "history.json"

    @property
    def summary(self) -> Path:
        return self.figures / "summary.json"


def plan_study(request: Request) -> tuple[PlannedSetting, ...]:
    """The settings of a study, in the order of --noise and --rate.

    Raises UserError with the flag and the remedy if the request contradicts itself.
    """
    check_request(request)
    settings = {}
    for noise, rate in product(request.noises, request.rates):
        rate = rate if has_rate(noise) else None
        settings[noise, rate] = plan_setting(request, noise, rate)
    names = [setting.name for setting in settings.values()]
    _refuse_duplicates("--noise, --rate", names)
    return tuple(settings.values())


def plan_setting(request: Request, noise: str, rate: float | None) -> PlannedSetting:
    """The runs of one noise at one rate: every loss with every seed."""
    name = f"{request.name}-{noise_label(noise, rate, request.generate)}"
    runs = []
    for seed, loss in product(request.seeds, request.losses):
        data = plan_data(request, noise, rate, name, seed)
        run = f"{loss_slug(loss)}-seed{seed}"
        flags = ("--loss", *shlex.split(loss), *request.train, "--seed", str(seed))
        flags += ("--data", str(data.path), "--run", run, "--resume", "auto")
        runs.append(PlannedRun(data, Path("runs") / data.path.stem / run, flags))
    return PlannedSetting(name, noise, rate, tuple(runs))


def plan_data(
    request: Request, noise: str, rate: float | None, setting: str, seed: int
) -> PlannedData:
    """The data set that the runs of a training seed use."""
    seed = seed if request.data_seed is None else request.data_seed
    path = Path("data") / f"{setting}-seed{seed}.npz"
    model, labels = split_noise(noise)
    flags = ("--dataset", request.data, "--noise", model)
    flags += ("--labels", labels) if labels else ()
    flags += () if rate is None else ("--rate", str(rate))
    flags += (*request.generate, "--seed", str(seed), "--out", str(path))
    return PlannedData(path, flags)


def check_request(request: Request) -> None:
    """Raise UserError with the flag and the remedy unless a study can be planned."""
    if not re.fullmatch(r"[\w.+-]+", request.name) or request.name.startswith("."):
        raise UserError(f"--name {request.name!r}: use letters, digits and . _ + - only")
    _refuse_duplicates("--noise", request.noises)
    _refuse_duplicates("--rate", request.rates)
    _refuse_duplicates("--seeds", request.seeds)
    _refuse_reserved("--generate", request.generate, GENERATE_RESERVED)
    _refuse_reserved("--train", request.train, TRAIN_RESERVED)
    for loss in request.losses:
        words = split_flags("--loss", loss)
        if not words or words[0].startswith("-"):
            raise UserError(f"--loss {loss!r}: begin with a loss's name, such as cross-entropy")
        _refuse_reserved("--loss", words, TRAIN_RESERVED)
    _refuse_duplicates("--loss", [loss_slug(loss) for loss in request.losses])


def split_flags(flag: str, text: str) -> tuple[str, ...]:
    """The words of a flag's value, split as a shell does. Raises UserError for an open quote."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise UserError(f"{flag} {text!r}: {error}; close the quote") from None


def _refuse_duplicates(flag: str, values: Sequence) -> None:
    for value in values:
        if list(values).count(value) > 1:
            raise UserError(f"{flag}: {value} is given twice; give each value once")


def _refuse_reserved(flag: str, words: Sequence[str], reserved: dict[str, str]) -> None:
    for word in words:
        name = word.split("=")[0]
        if name in reserved:
            raise UserError(f"{flag}: study.py sets {name} itself; {reserved[name]}")


def data_sets(settings: Sequence[PlannedSetting]) -> tuple[PlannedData, ...]:
    """Each data set of the settings once."""
    return tuple({run.data.path: run.data for s in settings for run in s.runs}.values())


def all_runs(settings: Sequence[PlannedSetting]) -> tuple[PlannedRun, ...]:
    """The runs of all settings, in their order."""
    return tuple(run for setting in settings for run in setting.runs)


def generate_command(data: PlannedData) -> Command:
    """The command that makes a data set, unless it exists already."""
    return ("generate.py", *data.flags, "--if-missing")


def train_command(run: PlannedRun) -> Command:
    """The command that trains a run."""
    return ("train.py", *run.flags)


def frequency_command(folders: Sequence[Path]) -> Command:
    """The command that filters the outputs of the runs in these folders."""
    return ("frequency.py", *map(str, folders))


def collect_command(setting: PlannedSetting, folders: Sequence[Path]) -> Command:
    """The command that collects a setting's runs and writes its table."""
    flags = ("--out", str(setting.history), "--summary", setting.summary.stem)
    return ("collect_history.py", *map(str, folders), *flags)


def plot_command(histories: Sequence[Path], figures: Path) -> Command:
    """The command that draws the figures of these histories."""
    return ("plot.py", *map(str, histories), "--out", str(figures))


def rate_figures(
    name: str, settings: Sequence[PlannedSetting]
) -> dict[Path, tuple[PlannedSetting, ...]]:
    """The folders of the figures over the noise rate, one per noise with several rates."""
    noises = dict.fromkeys(setting.noise for setting in settings)
    groups = {noise: tuple(s for s in settings if s.noise == noise) for noise in noises}
    return {Path("figures") / f"{name}-{n}": group for n, group in groups.items() if group[1:]}


def shell_line(run: PlannedRun, python: str, folder: Path) -> str:
    """A line of shell that makes the run's data set if it is missing, and trains the run.

    python: how a shell calls Python; folder: where the scripts are.
    """
    commands = (generate_command(run.data), train_command(run))
    lines = (shlex.join((python, str(folder / c[0]), *c[1:])) for c in commands)
    return " && ".join(lines)
