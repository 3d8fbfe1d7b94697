"""Runs made by hand, with curves whose stops and differences are known, and their folders."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from analysis.history import Run
from common import run_folder

DISTILLED, PREVIOUS = "self-distillation", "self-distillation, previous epoch"
DELTAS, MASSES = [100.0, 400.0, 564.0], [1.0, 5.0, 20.0]
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
) -> Run:
    """A run; `validation` or `gap` None: not known. Its measures rise by 0.1 with each epoch."""
    length = len(accuracy)
    unknown = np.full(length, np.nan)
    gap = unknown if gap is None else np.array(gap, float)
    history = {
        "epoch": np.arange(1.0, length + 1),
        "lr": np.full(length, 0.05),
        "test_accuracy": np.array(accuracy, float),
        "val_accuracy": unknown if validation is None else np.array(validation, float),
        "sample_memorized": gap,
        "sample_clean_accuracy_right": 0 * gap + 100,
        "sample_clean_accuracy_wrong": 100 - gap,
        "seconds": np.full(length, 1.5),
    }
    rising = 0.1 * np.arange(1, length + 1)
    curves = ("one_hot_residual", "one_hot_transition", "test_calibration_error")
    curves += tuple(f"one_hot_residual_contrast_{part}" for part in ("low", "mid", "high"))
    meta = {"name": f"main-{noise}40-seed{seed}", "seed": seed, "noise": noise, "rate_found": 0.4}
    meta |= {"title": "cifar10", "train_size": 100, **dict(data)}
    meta.setdefault("digest", f"{noise} {seed}")
    settings = {**SETTINGS, "loss": loss, "seed": seed, "epochs": epochs or length} | dict(settings)
    name = f"{meta['name']}/{loss.replace(', ', '-').replace(' ', '-')}-seed{seed}"
    return Run(
        name=name,
        loss=loss,
        network="small_cnn",
        seed=seed,
        epochs=epochs or length,
        settings=settings,
        data=meta,
        measured_from=hashlib.sha256(
            f"{name}{accuracy}{sorted(settings.items())}".encode()
        ).hexdigest(),
        history=history,
        memorization={name: rising.copy() for name in curves} if memorization else {},
        frequency=make_frequency(rising) if frequency else None,
    )


def make_frequency(rising, deltas=DELTAS, masses=MASSES, values="softmax") -> dict:
    """A frequency.json; measures (epochs, D) are `rising` (epochs,) times 1, 2, 3 by delta."""
    table = [[float(x * (k + 1)) for k in range(len(deltas))] for x in rising]
    bands = {
        f"{p}_{b}": table for p in ("clean", "transition", "residual") for b in ("low", "high")
    }
    place = {"n": 100, "delta": list(deltas), "mass": list(masses)}
    test = {**place, "outputs": {"energy_share": table, "e_low": table, "e_high": table}}
    sample = {**place, "outputs": bands, "one_hot": bands}
    return {"values": values, "test": test, "sample": sample}


def with_deltas(run: Run, deltas, masses, values="softmax") -> Run:
    """The run with a frequency.json of other deltas."""
    rising = 0.1 * np.arange(1, len(run.history["epoch"]) + 1)
    return replace(run, frequency=make_frequency(rising, deltas, masses, values))


def study(
    noises=("pair", "symmetric", "human"),
    losses=("cross-entropy", DISTILLED, PREVIOUS),
    seeds=(6, 7, 8),
    **more,
) -> list[Run]:
    """A run of every noise, loss and seed, with curves drawn at random but always the same."""
    random = np.random.default_rng(0)
    runs = []
    for noise in noises:
        for loss in losses:
            for seed in seeds:
                lift = 3 * losses.index(loss)
                accuracy = random.normal([30, 50 + lift, 55 + lift, 45 + 2 * lift])
                gap = np.sort(random.uniform(0, 70, 4))
                validation = random.normal([20, 30, 31, 29])
                runs.append(make_run(loss, seed, accuracy, validation, gap, noise, **more))
    return runs


def write_run(run: Run, runs: Path = Path("runs"), more=()) -> Path:
    """The run as a folder runs/<data set>/<run>, as train.py and frequency.py write it."""
    folder = runs / run.name
    folder.mkdir(parents=True)
    flags = {**run.settings, "data": "data/x.npz", "device": "cpu", **dict(more)}
    content = {"loss": run.loss, "network": run.network, "flags": flags, "data": run.data}
    run_folder.write_config(folder, content)
    curves = {k: [None if np.isnan(v) else v for v in curve] for k, curve in run.history.items()}
    for k in range(len(run.history["epoch"])):
        record = {name: curve[k] for name, curve in curves.items()}
        digests = {"logits.npy": f"{run.measured_from} {k}"}
        run_folder.append_history(folder, {**record, "epoch": k + 1, "sha256": digests})
    if run.memorization:
        curves = {name: curve.tolist() for name, curve in run.memorization.items()}
        run_folder.write_measure(folder, run_folder.MEMORIZATION, {"curves": curves})
    if run.frequency:
        run_folder.write_measure(folder, run_folder.FREQUENCY, run.frequency)
    return folder
