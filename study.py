"""Run a whole study: generate, train, measure, collect and draw for many settings.

    python study.py --data shapes --train "--model small_cnn --epochs 20 --lr 0.05"
    python study.py --data cifar10 --noise pair symmetric --rate 0.2 0.4 --seeds 0 1 2
    python study.py --noise pair CIFAR-10_human.pt:worse_label --generate "--val-size 2000"
    python study.py --loss cross-entropy "self-distillation --teacher previous-epoch" --jobs 4
    python study.py --data cifar10 --seeds 0 1 2 --list > commands.txt     for other machines

A study has a data set for each noise, rate and seed, and a run for each loss on it; its table and
figures go to figures/<name>/. The same command finishes a stopped study, and machines that share a
folder train each run once. With several GPUs each run has its own; on a CPU they share the cores.
"""

import io
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import ModuleType

from common.command_line import Parser, UserError, end_quietly, fraction, integer, run_script

if __name__ == "__main__":
    end_quietly()  # on Ctrl-C, while Python imports the rest

from tqdm import tqdm

import generate
import train
from common.run_folder import AGAIN, is_complete, read_config, read_history
from dataset.data_file import file_digest
from dataset.make import exists_already
from dataset.noise import NOISES

SCRIPTS = Path(__file__).resolve().parent
# The flags of generate.py and train.py that study.py sets itself.
RESERVED = ["--dataset", "--noise", "--labels", "--rate", "--seed", "--out", "--if-missing"]
RESERVED += ["--loss", "--dis", "--data", "--run", "--runs", "--resume", "--overwrite"]
RESERVED += ["--evaluate", "--export", "--help", "-h"]
LOCKED = "is training it"  # train.py's message if another process trains the run
HEARTBEAT = 25  # seconds between two lines of progress


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--data", default="cifar10", help="cifar10, cifar100, shapes, or a folder of images")
    add("--noise", nargs="+", default=["pair"], help="models or FILE:LABELS, by default pair")
    add("--rate", nargs="+", type=fraction, help="rates of the noise models, by default 0.4")
    add("--seeds", nargs="+", type=integer(0), default=[0], help="seeds, by default 0")
    losses = [["cross-entropy"], ["self-distillation"]]
    add("--loss", nargs="+", type=flags, default=losses, help="losses, by default both of --dis")
    add("--generate", type=flags, default=[], metavar="FLAGS", help="more flags of generate.py")
    more = "more flags of train.py; flags in --loss override them"
    add("--train", type=flags, default=[], metavar="FLAGS", help=more)
    add("--name", help="name of the study in paths; by default that of --data")
    jobs = "runs side by side; by default one per GPU, or 2 on a CPU"
    add("--jobs", type=integer(1, 1000), help=jobs)
    add("--list", action="store_true", help="only print the training commands, one per line")
    # As --train=FLAGS: argparse would take FLAGS, which begin with a dash, for flags of its own.
    words = list(sys.argv[1:] if argv is None else argv)
    for k in reversed(range(len(words) - 1)):
        if words[k] in ("--generate", "--train"):
            words[k : k + 2] = [f"{words[k]}={words[k + 1]}"]
    args = parser.parse_args(words)
    args.name = args.name or Path(args.data).resolve().name
    if not re.fullmatch(r"[\w+-][\w.+-]*", args.name):
        parser.error(f"--name {args.name!r}: use letters, digits and . _ + - only")
    return args


def flags(text: str) -> list[str]:
    """A type for flags of the other scripts in quotes, split as a shell does."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text}: {error}; fix the quotes") from None
    for name in {word.split("=")[0] for word in words}.intersection(RESERVED):
        raise ArgumentTypeError(f"study.py sets {name} itself; leave it out: study.py --help")
    return words


@dataclass
class Run:
    """A run of the study: what it is, how it is made, and how far it is."""

    name: str  # <noise>/<run>, for the user
    line: str  # of shell: makes the data set if it is missing, and trains
    data: Namespace  # what generate.py makes of its flags
    settings: train.RunSettings
    complete: bool = False
    process: subprocess.Popen | None = None
    elsewhere: bool = False  # another process trains it

    def records(self) -> list[dict]:
        """The epochs on disk."""
        with suppress(UserError):
            return read_history(self.settings.folder)[0]
        return []

    def __str__(self) -> str:
        records = self.records()
        if not records:
            return self.name
        accuracy = records[-1]["test_accuracy"]
        return f"{len(records)}/{self.settings.epochs} test {accuracy:.1f}% {self.name}"


def plan(args: Namespace) -> list[Run]:
    """The runs. Raises UserError for a wrong flag, in the words of the script that refuses it."""
    runs: dict[str, Run] = {}
    for (noise, noise_flags), seed, loss in product(noises(args), args.seeds, args.loss):
        data = f"data/{args.name}-{noise}-seed{seed}.npz"
        generate_flags = ["--dataset", args.data, *noise_flags, *args.generate]
        generate_flags += ["--seed", str(seed), "--out", data, "--if-missing"]
        run = f"{file_name(loss)}-seed{seed}"
        # argparse takes the last, and a flag of the loss names the run: it overrides --train.
        train_flags = ["--loss", *loss[:1], *args.train, *loss[1:], "--seed", str(seed)]
        train_flags += ["--data", data, "--run", run, "--resume", "auto"]
        name = f"{noise}/{run}"
        if name in runs:
            raise UserError(f"{name} is asked for twice; give it once, label files different names")
        made, settings = parsed(generate, generate_flags), parsed(train, train_flags).settings
        for other in runs.values():
            if settings.data == other.settings.data and settings.fixed == other.settings.fixed:
                raise UserError(f"{other.name} and {name} are the same run; leave one out")
        make = [sys.executable, os.path.relpath(SCRIPTS / "generate.py"), *generate_flags]
        learn = [sys.executable, os.path.relpath(SCRIPTS / "train.py"), *train_flags]
        runs[name] = Run(name, f"{shlex.join(make)} && {shlex.join(learn)}", made, settings)
    return list(runs.values())


def noises(args: Namespace) -> Iterator[tuple[str, list[str]]]:
    """For each noise and rate its name in files, such as pair40, and the flags of generate.py."""
    models = [noise for noise in args.noise if noise in NOISES and noise != "none"]
    if args.rate and not models:
        raise UserError("--rate: none of the noises has a rate; leave it out")
    for noise in args.noise:
        file, _, labels = noise.rpartition(":")
        if noise in models:
            for rate in args.rate or [0.4]:
                yield f"{noise}{100 * rate:g}", ["--noise", noise, "--rate", str(rate)]
        elif file and labels and "/" not in labels:
            yield file_name([Path(file).stem, labels]), ["--noise", file, "--labels", labels]
        else:
            yield file_name([Path(noise).stem]), ["--noise", noise]


def file_name(words: Sequence[str]) -> str:
    """Words in names: self-distillation --weight 0.2 --soft -> self-distillation-weight0.2-soft."""
    text = re.sub(r"--([a-z-]+)[ =](?!--|[A-Za-z])", r"\1", " ".join(words))
    text = re.sub(r"--[a-z-]+[ =](?!--)", "", text)  # a word as a value is clear by itself
    return re.sub(r"[^\w.+-]", "-", text.replace(" --", " "))


def parsed(script: ModuleType, words: Sequence[str]) -> Namespace:
    """What the script makes of its flags. Raises UserError with the script's own line."""
    with redirect_stderr(io.StringIO()) as errors, suppress(SystemExit):
        return script.parse_args(words)
    raise UserError(f"{script.__name__}.py: {errors.getvalue().strip().partition('error: ')[2]}")


def check_existing(runs: Sequence[Run]) -> None:
    """Find the complete runs. Raises UserError if something was made with other settings."""
    data = {run.data.out: run.data.settings for run in runs}
    try:
        exists = {path: exists_already(path, settings) for path, settings in data.items()}
    except UserError as error:
        raise UserError(str(error).replace("--out", "--name")) from None
    for run in runs:
        folder = run.settings.folder
        found = ""
        with suppress(UserError):  # train.py or frequency.py says what is wrong with it
            found = differs(run.settings) if (folder / "config.json").exists() else ""
        if found:
            raise UserError(f"{folder} exists with {found}; remove it, or use another --name")
        with suppress(UserError):  # train.py says what is wrong with it
            run.complete = exists[run.data.out] and is_complete(folder, run.settings.epochs)


def differs(settings: train.RunSettings) -> str:
    """How the run on disk differs from these settings; empty if it does not."""
    config = read_config(settings.folder)
    if settings.data.exists() and config["data"]["digest"] != file_digest(settings.data):
        return "another data set"
    for name, value in settings.fixed.items():
        found = config["flags"].get(name)
        if found != value and not (name == "amp" and value is None):  # train.py then chooses
            return f"{name} = {found}, not {value}"
    return ""


def visible_gpus() -> list[str]:
    """The GPUs that torch can use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    return named.split(",")[:count]


def make_slots(jobs: int | None, gpus: Sequence[str]) -> list[dict[str, str]]:
    """For each run side by side its environment: a GPU, if there are several, and threads."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jobs = jobs or len(gpus) or min(2, cores)
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, cores // jobs)))
    gpu = [{"CUDA_VISIBLE_DEVICES": name} for name in gpus] if len(gpus) > 1 else [{}]
    return [{"OMP_NUM_THREADS": threads, **gpu[k % len(gpu)]} for k in range(jobs)]


def train_all(runs: Sequence[Run], slots: Sequence[dict[str, str]]) -> list[str]:
    """Train the runs, one in each slot at a time; returns a line for each that failed.

    A terminal has a bar, and another output a line every HEARTBEAT seconds.
    """
    free = list(slots)  # as many as the pool has threads
    left, jobs, errors = [run for run in runs if not run.complete], [], []
    terminal = sys.stdout.isatty()
    file = sys.stdout if terminal else io.StringIO()  # from which nothing is read
    total = sum(run.settings.epochs for run in runs)
    done = sum(len(run.records()) for run in runs)
    bar = tqdm(total=total, initial=done, unit="epoch", file=file, dynamic_ncols=True, leave=False)
    with bar, ThreadPoolExecutor(len(slots)) as pool:
        try:
            while left:
                jobs = [pool.submit(train_one, run, free) for run in left]
                while wait(jobs, 1 if terminal else HEARTBEAT).not_done:
                    bar.n = sum(len(run.records()) for run in runs)
                    trained = [str(run) for run in runs if run.process or run.elsewhere]
                    bar.set_postfix_str(", ".join(trained))
                    if not terminal:
                        print(bar)
                errors += [job.result() for job in jobs if job.result()]
                left = [run for run in left if run.elsewhere]
                time.sleep(HEARTBEAT if left else 0)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop(runs, jobs)
            raise
    return errors


def stop(runs: Sequence[Run], jobs: Sequence[Future]) -> None:
    """End the processes that train; those that have not ended after 15 seconds are killed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # what follows ends by itself
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in [run.process for run in runs if run.process]:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        wait([job for job in jobs if job.running()], timeout=15)


def train_one(run: Run, free: list[dict[str, str]]) -> str:
    """Make a run in a free slot; returns a line if it has failed."""
    slot, began = free.pop(), time.monotonic()
    run.process = subprocess.Popen(
        run.line,
        shell=True,
        start_new_session=True,  # so that Ctrl-C reaches it from `stop` only
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        errors="replace",
        env={**os.environ, **slot},
    )
    output = run.process.communicate()[0].strip()
    status, run.process = run.process.returncode, None
    free.append(slot)
    last = output.rpartition("\n")[2] or f"exit status {status}"
    run.complete, run.elsewhere = status == 0, LOCKED in last
    if "Traceback" in output:
        tqdm.write(output)
    if run.complete:
        line = f"done in {tqdm.format_interval(time.monotonic() - began)}: {run}"
    elif run.elsewhere:
        line = f"waiting: another process is training {run.name}"
    elif status < 0:
        line = f"stopped: {run.settings.folder}"  # by `stop`
    else:
        last = last.replace(AGAIN, "remove this folder and repeat the command")
        last = re.sub(r"--run\b", "--name", last)
        line = str(UserError(f"failed: {run.settings.folder}: {last}"))
    tqdm.write(line)
    return "" if run.complete or run.elsewhere else line


def report(name: str, runs: Sequence[Run]) -> list[str]:
    """Measure, collect and draw complete runs; returns a line for each script that failed."""
    folders, out = [str(run.settings.folder) for run in runs], f"figures/{name}"
    history = f"{out}/history.json"
    calls = [["frequency.py"], ["collect_history.py", "--out", history], ["plot.py", "--out", out]]
    errors = []
    for script, *words in calls:
        if subprocess.run([sys.executable, str(SCRIPTS / script), *folders, *words]).returncode:
            errors.append(f"{script} failed: see above")
    return errors


def run_study(args: Namespace) -> int:
    """Make what is missing of the study; returns the exit status, 1 if something has failed."""
    sys.stdout.reconfigure(line_buffering=True)  # also where it is a file
    runs = plan(args)
    if args.list:
        print(*(run.line for run in runs), sep="\n")
        return 0
    check_existing(runs)
    figures = Path("figures") / args.name
    if figures.exists() and not figures.is_dir():
        raise UserError(f"{figures}: a file; move it away, or use another --name")
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # nohup ignores it
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    gpus = [] if all(run.settings.device == "cpu" for run in runs) else visible_gpus()
    slots, done = make_slots(args.jobs, gpus), sum(run.complete for run in runs)
    print(f"{done} of {len(runs)} runs complete; {len(slots)} at a time; {len(gpus)} GPUs found")
    errors = train_all(runs, slots)
    complete = [run for run in runs if run.complete]
    errors += report(args.name, complete) if complete else []
    for line in errors:
        print(f"study.py: {line}", file=sys.stderr)
    return 1 if errors else 0


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    return run_script("study.py", lambda: run_study(args), "run the same command to go on")


if __name__ == "__main__":
    sys.exit(main())
