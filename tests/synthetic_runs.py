"""Runs without training: curves like those of the pilot study, for tests of what reads runs."""

import numpy as np

from analysis.history import Run

PILOT_EPOCHS = (0, 3, 5, 8, 10, 12, 15, 20, 25, 30, 40)
# Pair flip, averaged weights: test accuracy, held-out noisy labels, wrong labels memorized (%).
PILOT = {
    "cross-entropy": (
        (20, 49.9, 55.8, 57.7, 56.0, 52.4, 48.2, 44.0, 43.1, 43.3, 43.5),
        (15, 32.4, 37.7, 39.2, 40.0, 39.5, 39.1, 39.0, 38.0, 37.9, 38.0),
        (11, 13, 18, 29, 41, 57, 79, 97, 100, 100, 100),
    ),
    "self-distillation": (
        (20, 49.3, 57.8, 59.1, 57.5, 55.0, 51.8, 48.9, 46.7, 45.8, 45.6),
        (15, 33.6, 38.5, 40.0, 40.2, 39.6, 37.6, 36.5, 37.2, 35.1, 35.5),
        (11, 11, 16, 28, 39, 53, 67, 78, 82, 83, 84),
    ),
    "self-distillation, previous epoch": (
        (20, 49.1, 56.4, 60.8, 61.8, 62.1, 61.5, 60.3, 58.5, 56.9, 55.3),
        (15, 32.4, 37.0, 38.6, 40.5, 41.3, 41.0, 40.1, 39.9, 39.9, 39.2),
        (11, 13, 15, 18, 22, 26, 32, 42, 49, 54, 56),
    ),
}
LOSSES = tuple(PILOT)
OTHER_LOSSES = (
    "generalized cross-entropy",
    "early-learning regularization",
    "label smoothing",
    "mixup",
)
DELTAS = (50.0, 100.0, 200.0, 400.0, 564.0, 800.0)
MASS = (1.0, 1.3, 2.4, 9.0, 21.0, 55.0)
EDGES = [1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1001]


def make_run(
    loss="cross-entropy",
    seed=0,
    *,
    epochs=40,
    noise="pair",
    rate=0.4,
    trained=None,
    data=None,
    measured=True,
    values="softmax",
    held_out=True,
    **settings,
) -> Run:
    """A run whose curves are the pilot's, stretched to `epochs` and shifted by its seed.

    trained: epochs that it has by now; data: entries of its data set that differ.
    """
    mark = sum(loss.encode())
    random = np.random.default_rng([seed, mark, len(noise), epochs])
    place = np.arange(1, epochs + 1) / epochs * 40
    known = loss if loss in PILOT else LOSSES[mark % 3]
    accuracy, held, memorized = (np.interp(place, PILOT_EPOCHS, c) for c in PILOT[known])
    accuracy = accuracy + random.normal(0, 1.5) + random.normal(0, 0.3, epochs)
    accuracy += mark % 5 if loss not in PILOT else 0
    memorized = np.clip(memorized + random.normal(0, 2), 0, 100)
    right = 100 - 45 * np.exp(-place / 6)
    wrong = np.clip(right * (1 - memorized / 100), 0, 100)
    none = np.full(epochs, np.nan)
    clean = rate == 0
    history = {
        "epoch": np.arange(1.0, epochs + 1),
        "train_cross_entropy": 2.2 * np.exp(-memorized / 40),
        "test_cross_entropy": 1.4 + memorized / 60,
        "test_accuracy": accuracy,
        "val_accuracy": held if held_out else none,
        "sample_memorized": none if clean else memorized,
        "sample_clean_accuracy_right": right,
        "sample_clean_accuracy_wrong": none if clean else wrong,
    }
    size = {"train_size": 10000, "val_size": 2000 if held_out else 0, "test_size": 10000}
    title = f"cifar10-{noise}{100 * rate:g}-seed{seed}"
    meta = {"name": title, "digest": title, "title": "cifar10", "noise": noise, "seed": seed}
    measures = measure(loss, memorized / 100, right / 100, values) if measured else {}
    run = Run(
        name=f"{title}/{loss.replace(', ', '-')}-seed{seed}",
        loss=loss,
        network="small_cnn, averaged weights, decay 0.99",
        seed=seed,
        epochs=epochs,
        settings={"lr": 0.05, "seed": seed, "loss": loss, "epochs": epochs, **settings},
        data={**meta, "rate_requested": rate, "rate_found": rate, **size, **(data or {})},
        measured_from=f"{title} {loss} {settings}",
        history=history,
        **measures,
    )
    return run if trained is None else shortened(run, trained)


def measure(loss: str, memorized: np.ndarray, right: np.ndarray, values: str) -> dict:
    """memorization, frequency and spectrum of a run: smooth functions of what it memorized."""
    step = np.linspace(0.8, 1.2, len(DELTAS))
    share = 0.33 + 0.5 * (1 - memorized)[:, None] * step  # (epochs, deltas)
    by_measure = {
        "delta_norm": np.sqrt(share),
        "energy_share": share,
        "lfr": share,
        "excess": share - 0.25,
    }
    errors = {"e_low": 0.6 + share, "e_high": 1.4 - 0.5 * share} if values == "softmax" else {}
    parts = {
        "clean_low": right[:, None] * step / 1.2,
        "clean_high": (right**3)[:, None] * step / 1.2,
        "residual_low": memorized[:, None] * step / 1.2,
        "residual_high": (memorized**1.3)[:, None] * step / 1.2,
    }
    levels = {"delta_norm": [0.45] * len(DELTAS), "energy_share": [0.315] * len(DELTAS)}
    shuffled = {"delta_norm": [0.37] * len(DELTAS), "energy_share": [0.248] * len(DELTAS)}
    section = {"n": 1000, "delta": list(DELTAS), "mass": list(MASS), "shuffled": shuffled}
    section["labels"] = {"true": levels}
    as_lists = {name: rows.tolist() for name, rows in {**by_measure, **errors}.items()}
    sample = {name: rows.tolist() for name, rows in {**by_measure, **parts}.items()}
    fall = np.linspace(1, 0.4, len(EDGES) - 1)
    softmax = {
        "clean": (right[:, None] * fall**0.3).tolist(),
        "residual": (memorized[:, None] * fall).tolist(),
    }
    energies = np.diff(EDGES) / 1000
    kernel = {
        "kernel": "gaussian",
        "delta": 564.0,
        "edges": EDGES,
        "energies": {"clean": (energies**0.5 / (energies**0.5).sum()).tolist(),
                     "residual": energies.tolist()},
        "softmax": softmax,
    }  # fmt: skip
    return {
        "memorization": {"auc": 0.9 - 0.4 * memorized, "gap": 100 * memorized},
        "frequency": {
            "values": values,
            "test": {**section, "outputs": as_lists},
            "sample": {**section, "outputs": sample, "one_hot": sample},
        },
        "spectrum": {"n": 1000, "epochs": len(right), "kernels": [kernel]},
    }


def shortened(run: Run, epochs: int) -> Run:
    """The run as it was after fewer epochs, not measured."""
    history = {name: curve[:epochs] for name, curve in run.history.items()}
    keep = {name: value for name, value in vars(run).items()}
    return Run(**{**keep, "history": history, "memorization": {}, "frequency": None,
                  "spectrum": None})  # fmt: skip


def make_runs(losses=LOSSES, seeds=(0, 1), noises=("pair",), **options) -> list[Run]:
    """Runs of every noise, loss and seed."""
    return [
        make_run(loss, seed, noise=noise, **options)
        for noise in noises
        for loss in losses
        for seed in seeds
    ]
