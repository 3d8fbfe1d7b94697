"""Runs made by hand, with curves whose stops and differences are known, and their folders."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from analysis.history import Run
from common import run_folder
from common.files import without_nan

DISTILLED, PREVIOUS = "self-distillation", "self-distillation, previous epoch"
LOSSES = ("cross-entropy", DISTILLED, PREVIOUS)
DELTAS, MASSES = [100.0, 400.0, 564.0], [1.0, 5.0, 20.0]
EDGES = [1, 2, 4, 8, 16, 32, 64, 101]  # of the bands of eigenvectors
PARTS = ("clean", "transition", "residual")
SETTINGS = {"loss": "", "teacher": "batch", "weight": None, "model": "small_cnn", "lr": 0.05}
SETTINGS |= {"augment": False, "ema_decay": 0.0}


def make_run(
    loss="cross-entropy",
    seed=6,
    accuracy=(40, 60, 50),
    validation=(30, 35, 33),
    gap=(0, 10, 30),
    noise="pair",
    epochs=None,
    settings=(),
    data=(),
    frequency=True,
    memorization=True,
    spectrum=False,
) -> Run:
    """A run; `validation` or `gap` None: not known. Its measures rise by 0.1 with each epoch."""
    length = len(accuracy)
    unknown = np.full(length, np.nan)
    gap = unknown if gap is None else np.array(gap, float)
    rising = 0.1 * np.arange(1, length + 1)
    history = {
        "epoch": np.arange(1.0, length + 1),
        "lr": np.full(length, 0.05),
        "train_cross_entropy": 2 - rising,
        "test_cross_entropy": 1 + rising + seed,
        "test_accuracy": np.array(accuracy, float),
        "val_accuracy": unknown if validation is None else np.array(validation, float),
        "sample_memorized": gap,
        "sample_clean_accuracy_right": 0 * gap + 100,
        "sample_clean_accuracy_wrong": 100 - gap,
        "seconds": np.full(length, 1.5),
    }
    curves = ("auc", "one_hot_residual", "one_hot_transition", "test_calibration_error")
    curves += tuple(f"one_hot_residual_contrast_{part}" for part in ("low", "mid", "high"))
    meta = {"name": f"main-{noise}40-seed{seed}", "seed": seed, "noise": noise, "rate_found": 0.4}
    meta |= {"source": "cifar10", "train_size": 100, **dict(data)}
    meta.setdefault("digest", f"{noise} {seed}")
    settings = {**SETTINGS, "loss": loss, "seed": seed, "epochs": epochs or length} | dict(settings)
    name = f"{meta['name']}/{loss.replace(', ', '-').replace(' ', '-')}-seed{seed}"
    outputs = f"{name}{accuracy}{meta['digest']}{sorted(settings.items())}"
    return Run(
        name=name,
        loss=loss,
        network="small_cnn",
        seed=seed,
        epochs=epochs or length,
        settings=settings,
        data=meta,
        measured_from=hashlib.sha256(outputs.encode()).hexdigest(),
        history=history,
        memorization={name: rising + seed / 100 for name in curves} if memorization else {},
        frequency=make_frequency(rising) if frequency else None,
        spectrum=make_spectrum(rising + seed / 100) if spectrum else None,
    )


def make_frequency(rising, deltas=DELTAS, masses=MASSES, values="softmax") -> dict:
    """A frequency.json; measures (epochs, D) are `rising` (epochs,) times 1, 2, 3 by delta."""
    table = [[float(x * (k + 1)) for k in range(len(deltas))] for x in rising]
    ratios, errors = ("energy_share", "delta_norm"), ("e_low", "e_high")
    place = {"n": 100, "delta": list(deltas), "mass": list(masses)}
    low, high = ({name: [level] * len(deltas) for name in ratios} for level in (0.25, 0.5))
    test = {**place, "shuffled": low, "labels": {"true": high}}
    if values == "logits":
        test |= {"outputs": dict.fromkeys(ratios, table)}
        return {"values": values, "test": test, "sample": {**place, "outputs": {}}}
    bands = dict.fromkeys((f"{part}_{b}" for part in PARTS for b in ("low", "high")), table)
    test |= {"outputs": dict.fromkeys(ratios + errors, table)}
    return {"values": values, "test": test, "sample": {**place, "outputs": bands, "one_hot": bands}}


def make_spectrum(rising, kernel="gaussian", delta=564.0, edges=EDGES) -> dict:
    """A spectrum.json of one kernel; coefficients (epochs, K) are `rising` (epochs,) over 1 + k."""
    table = [[float(x / (k + 1)) for k in range(len(edges) - 1)] for x in rising]
    energies = (np.diff(edges) / 100).tolist()
    parts = {"energies": dict.fromkeys(PARTS, energies), "softmax": dict.fromkeys(PARTS, table)}
    entry = {"kernel": kernel, "delta": delta, "edges": list(edges), **parts}
    return {"n": 100, "epochs": len(table), "kernels": [entry]}


def with_deltas(run: Run, deltas=DELTAS, masses=MASSES, values="softmax") -> Run:
    """The run with another frequency.json."""
    rising = 0.1 * np.arange(1, len(run.history["epoch"]) + 1)
    return replace(run, frequency=make_frequency(rising, deltas, masses, values))


def study(
    noises=("pair", "symmetric", "human"), losses=LOSSES, seeds=(6, 7, 8), length=4, **more
) -> list[Run]:
    """A run of every noise, loss and seed, with curves drawn at random but always the same."""
    random = np.random.default_rng(0)
    runs = []
    for noise in noises:
        for loss in losses:
            for seed in seeds:
                lift = 3 * losses.index(loss)
                accuracy, validation = (
                    random.normal(np.interp(np.linspace(0, 3, length), range(4), means))
                    for means in ([30, 50 + lift, 55 + lift, 45 + 2 * lift], [20, 30, 31, 29])
                )
                gap = np.sort(random.uniform(0, 70, length))
                curves = {"accuracy": accuracy, "validation": validation, "gap": gap}
                runs.append(make_run(loss, seed, noise=noise, **{**curves, **more}))
    return runs


def shortened(run: Run, epochs: int) -> Run:
    """The run as it was after fewer epochs, not measured."""
    history = {name: curve[:epochs] for name, curve in run.history.items()}
    measures = {"memorization": {}, "frequency": None, "spectrum": None}
    return replace(run, history=history, measured_from=f"early {run.name}", **measures)


def write_run(run: Run, runs: Path = Path("runs")) -> Path:
    """The run as a folder runs/<data set>/<run>, as train.py and frequency.py write it."""
    folder = runs / run.name
    folder.mkdir(parents=True)
    flags = {**run.settings, "data": "data/x.npz", "device": "cpu"}
    content = {"loss": run.loss, "network": run.network, "flags": flags, "data": run.data}
    run_folder.write_config(folder, content)
    for k in range(len(run.history["epoch"])):
        record = {name: without_nan(curve[k]) for name, curve in run.history.items()}
        digests = {"logits.npy": f"{run.measured_from} {k}"}
        run_folder.append_history(folder, {**record, "epoch": k + 1, "sha256": digests})
    curves = {"curves": without_nan(run.memorization)} if run.memorization else None
    contents = curves, run.frequency, run.spectrum
    names = run_folder.MEMORIZATION, run_folder.FREQUENCY, run_folder.SPECTRUM
    for name, content in zip(names, contents, strict=True):
        if content:
            run_folder.write_measure(folder, name, content)
    return folder
