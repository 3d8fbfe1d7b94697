"""train.py: what a run leaves on disk, how it is measured, how it ends."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SMALL_RUN, history, make_dataset
from torch import nn

import losses
import training.prepare
from common import run_folder
from common.logits import read_logits
from dataset.batches import normalize
from dataset.data_file import read_dataset, write_dataset
from models.small_cnn import small_cnn
from training import checkpoint
from training.epoch import learning_rate
from training.prepare import prepare_device
from training.settings import RunSettings
from training.statistics import evaluate

RUN = Path("runs/small/a")
DISTILLED = Path("runs/small/dis1-small_cnn-seed0")


@pytest.fixture
def trained_run(workplace, script):
    """Train a run named `a`: trained_run(*flags, **sizes of its data set) -> its data set."""

    def train(*flags, **sizes):
        if sizes:
            write_dataset(Path("data/small.npz"), make_dataset(**sizes))
        assert script("train", *SMALL_RUN, "--run=a", *flags)[0] == 0
        return read_dataset(Path("data/small.npz"))

    return train


def checkpoint_model(run):
    """The network of the run's checkpoint."""
    model = small_cnn(4)
    model.load_state_dict(checkpoint.read(run, "cpu")["model"])
    return model


def test_learning_rate_follows_the_step(monkeypatch, trained_run):
    rates = []
    step = torch.optim.SGD.step

    def spy(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    trained_run("--epochs=3")
    assert rates == [learning_rate(k, 12, 0.05) for k in range(12)]  # 60 images, batch size 16
    assert [record["lr"] for record in history(RUN)] == rates[::4]


def test_files_of_a_run(trained_study):
    dataset = read_dataset(trained_study / "data/small.npz")
    for dis, name in enumerate(("cross-entropy", "self-distillation")):
        run = trained_study / f"runs/small/dis{dis}-small_cnn-seed1"
        config = run_folder.read_config(run)
        assert config["loss"] == name and config["network"] == "small_cnn"
        assert config["flags"]["lr"] == 0.05 and config["flags"]["dis"] == dis
        assert config["data"]["name"] == "small" and config["data"]["digest"] == dataset.sha256
        assert config["versions"]["torch"] == torch.__version__ and "CPU" in config["device"]
        records = run_folder.read_history(run)[0]
        logits = read_logits(run / "logits.npy")[0]
        assert [r["epoch"] for r in records] == [1, 2, 3] and logits.shape == (3, 40, 4)
        for record, outputs in zip(records, logits, strict=True):
            # Test loss and accuracy are plain, for both losses.
            z = np.asarray(outputs, np.float64)
            log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
            loss = -log_p[np.arange(40), dataset.test_labels].mean()
            assert record["test_cross_entropy"] == pytest.approx(loss, rel=1e-5)
            accuracy = 100 * np.mean(z.argmax(1) == dataset.test_labels)
            assert record["test_accuracy"] == pytest.approx(accuracy)
            assert record["seconds"] > 0 and record["images_per_second"] > 0


def test_sample_is_balanced_and_measured_in_eval_mode(trained_run):
    dataset = trained_run("--epochs=2", "--sample-size=20", "--seed=3", train=100)
    index = run_folder.read_sample_indices(RUN)
    assert np.bincount(dataset.clean_labels[index]).tolist() == [5] * 4
    logits = read_logits(RUN / "train_logits.npy")[0]
    train_images = torch.from_numpy(dataset.train_images)
    expected = evaluate(checkpoint_model(RUN), train_images)[index]
    np.testing.assert_allclose(logits[-1], expected, rtol=1e-4, atol=1e-5)
    noisy, clean = dataset.train_labels[index], dataset.clean_labels[index]
    for record, outputs in zip(history(RUN), logits, strict=True):
        prediction = outputs.argmax(1)
        assert record["sample_accuracy"] == pytest.approx(100 * np.mean(prediction == noisy))
        assert record["sample_clean_accuracy"] == pytest.approx(100 * np.mean(prediction == clean))
        memorized = np.mean((prediction == noisy)[noisy != clean])
        assert record["sample_memorized"] == pytest.approx(100 * memorized)


def test_sample_is_the_same_for_every_seed(trained_run):
    trained_run("--epochs=1", "--sample-size=20", "--seed=3", train=100)
    first = run_folder.read_sample_indices(RUN)
    trained_run("--epochs=1", "--sample-size=20", "--seed=4", "--overwrite")
    np.testing.assert_array_equal(run_folder.read_sample_indices(RUN), first)
    assert run_folder.read_config(RUN)["flags"]["sample_size"] == 20


def test_without_a_flag_the_sample_is_all_of_a_small_training_set(trained_study):
    index = run_folder.read_sample_indices(trained_study / DISTILLED)
    np.testing.assert_array_equal(index, np.arange(60))


def test_last_logits_are_those_of_the_checkpoint(trained_study):
    run = trained_study / DISTILLED
    dataset = read_dataset(trained_study / "data/small.npz")
    model = checkpoint_model(run).eval()
    with torch.no_grad():
        expected = model(normalize(torch.from_numpy(dataset.test_images)))
    logits = read_logits(run / "logits.npy")[0]
    np.testing.assert_allclose(logits[-1], expected, rtol=1e-4, atol=1e-5)


def test_both_losses_see_the_same_start_and_order(workplace, script):
    first_logits = []
    for dis in (0, 1):
        flags = [f"--dis={dis}", "--epochs=1", "--lr=1e-30", "--weight-decay=0"]
        assert script("train", *SMALL_RUN, *flags)[0] == 0
        run = Path(f"runs/small/dis{dis}-small_cnn-seed0")
        first_logits.append(read_logits(run / "logits.npy")[0][0])
    # The weights do not move, but the batches move the running statistics of BatchNorm.
    np.testing.assert_array_equal(*first_logits)


def test_images_of_another_size_without_noise(trained_run, workplace):
    clean = make_dataset(size=12)
    clean.train_labels[:] = clean.clean_labels
    write_dataset(Path("data/small.npz"), clean)
    trained_run("--epochs=1")
    assert history(RUN)[0]["sample_memorized"] is None


def test_validation_accuracy_is_that_of_the_noisy_labels(trained_run):
    dataset = trained_run("--epochs=2", val=30)
    images = torch.from_numpy(dataset.val_images)
    prediction = evaluate(checkpoint_model(RUN), images).argmax(1).numpy()
    expected = 100 * np.mean(prediction == dataset.val_labels)
    assert history(RUN)[1]["val_accuracy"] == pytest.approx(expected)


def test_without_validation_images_there_is_no_such_accuracy(trained_study):
    assert history(trained_study / DISTILLED)[0]["val_accuracy"] is None


def test_evaluation_of_a_run(study, script, refused):
    status, out, err = script("train", "--evaluate", DISTILLED, "--device=cpu")
    last = history(DISTILLED)[-1]
    assert status == 0 and err == "" and out.count("\n") == 1
    assert f"epoch 3, test accuracy {last['test_accuracy']:.2f}%" in out
    assert f"test loss {last['test_cross_entropy']:.4f}" in out
    write_dataset(Path("data/small.npz"), make_dataset(seed=1))
    assert "trained on" in refused("train", "--evaluate", DISTILLED, "--device=cpu")
    assert "nowhere" in refused("train", "--evaluate", "nowhere")


def test_loss_that_is_not_finite_stops_the_run(workplace, script, monkeypatch):
    calls = []

    def explode(logits, labels):
        calls.append(1)
        return (math.inf if len(calls) == 5 else 1) * nn.functional.cross_entropy(logits, labels)

    monkeypatch.setitem(losses.LOSSES, "cross-entropy", explode)
    status, _, err = script("train", *SMALL_RUN, "--epochs=3", "--run=a")
    # 60 images are 4 steps an epoch, so the 5th is the first of the second epoch.
    assert status == 1 and err.count("\n") == 1
    assert "epoch 2, step 1:" in err and "--lr" in err and "checkpoint" in err
    assert checkpoint.read(RUN, "cpu")["epoch"] == 1
    assert len(history(RUN)) == 1


def test_learning_rate_that_diverges_ends_with_status_1(workplace, script):
    status, _, err = script("train", *SMALL_RUN, "--epochs=3", "--lr=1e30", "--run=a")
    assert status == 1 and "not finite" in err
    assert checkpoint.read(RUN, "cpu")["epoch"] == 0


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_products_of_float32_matrices_stay_float32(monkeypatch, device):
    # TF32 would round the evaluation's linear layers, and what is filtered later in this process.
    monkeypatch.setattr(training.prepare, "choose_device", torch.device)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    with torch.backends.cudnn.flags():  # restores them
        on_cuda = device == "cuda"
        chosen, settings, _ = prepare_device(RunSettings(device=device, cuda_graphs=on_cuda))
        assert chosen.type == device and settings.amp == on_cuda
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("c++"), reason="--compile needs a C++ compiler on a CPU")
def test_compiled_steps_are_the_plain_ones(workplace, script):
    write_dataset(Path("data/small.npz"), make_dataset(train=32, test=16))
    flags = [*SMALL_RUN, "--epochs=1", "--dis=1"]  # two steps
    assert script("train", *flags, "--run=plain")[0] == 0
    assert script("train", *flags, "--run=compiled", "--compile")[0] == 0
    plain, compiled = Path("runs/small/plain"), Path("runs/small/compiled")
    (record,), (other,) = history(plain), history(compiled)
    assert record.keys() == other.keys()
    for key in record.keys() - {"sha256"}:  # digests are of bits, which differ
        value = record[key]
        assert other[key] == (value if value is None else pytest.approx(value, rel=1e-3)), key
    states = [checkpoint.read(run, "cpu")["model"] for run in (plain, compiled)]
    assert list(states[0]) == list(states[1])
    for key, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][key], rtol=1e-3, atol=1e-4)
