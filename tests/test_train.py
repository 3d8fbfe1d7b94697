"""train.py: what a run leaves on disk, exact resumption, refusals."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL_RUN, history, make_dataset
from torch import nn

import checkpoint
import data
import epoch
import runs
import train

RUN = Path("runs/small/dis1-small_cnn-seed0")


def test_learning_rate_follows_the_step(monkeypatch, workplace):
    seen = []
    step = torch.optim.SGD.step

    def spy(self, *args, **kwargs):
        seen.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    train.main([*SMALL_RUN, "--epochs", "3"])
    assert seen == [train.learning_rate(k, 12, 0.05) for k in range(12)]  # 60 images, batch 16
    assert [r["lr"] for r in history(Path("runs/small/dis0-small_cnn-seed0"))] == seen[::4]


def test_what_a_run_leaves_on_disk(trained):
    dataset = data.read_dataset(trained / "data/small.npz")
    for dis, name in enumerate(("cross-entropy", "self-distillation")):
        run = trained / f"runs/small/dis{dis}-small_cnn-seed1"
        config = runs.read_config(run)
        assert config["loss"] == name and config["flags"]["lr"] == 0.05
        assert config["data"]["digest"] == dataset.sha256
        assert config["versions"]["torch"] == torch.__version__ and "CPU" in config["device"]
        records = runs.read_history(run)[0]
        logits = runs.read_logits(run / "logits.npy")[0]
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


def test_the_probe_is_a_balanced_part_of_the_training_set_in_eval_mode(workplace, script):
    data.write_dataset(Path("data/small.npz"), make_dataset(train=100))
    dataset = data.read_dataset(Path("data/small.npz"))
    assert script("train", *SMALL_RUN, "--epochs=2", "--probe=20", "--run=a", "--seed=3")[0] == 0
    assert script("train", *SMALL_RUN, "--epochs=1", "--probe=20", "--run=b", "--seed=4")[0] == 0
    a, b = Path("runs/small/a"), Path("runs/small/b")
    index = np.load(a / "probe_indices.npy")
    np.testing.assert_array_equal(index, np.load(b / "probe_indices.npy"))
    assert np.bincount(dataset.clean_labels[index]).tolist() == [5] * 4
    logits = runs.read_logits(a / "probe_logits.npy")[0]
    model = train.small_cnn(4)
    model.load_state_dict(checkpoint.read(a, "cpu")["model"])
    expected = epoch.evaluate(model, torch.from_numpy(dataset.train_images))[index]
    np.testing.assert_allclose(logits[-1], expected, rtol=1e-4, atol=1e-5)
    given, true = dataset.train_labels[index], dataset.clean_labels[index]
    for record, outputs in zip(history(a), logits, strict=True):
        prediction = outputs.argmax(1)
        assert record["probe_accuracy"] == pytest.approx(100 * np.mean(prediction == given))
        assert record["probe_clean_accuracy"] == pytest.approx(100 * np.mean(prediction == true))
        learnt = np.mean((prediction == given)[given != true])
        assert record["probe_memorized"] == pytest.approx(100 * learnt)


def test_without_a_flag_the_probe_is_all_of_a_small_training_set(trained):
    run = trained / "runs/small/dis0-small_cnn-seed0"
    np.testing.assert_array_equal(np.load(run / "probe_indices.npy"), np.arange(60))


def test_the_last_logits_are_those_of_the_checkpoint(trained):
    run = trained / "runs/small/dis1-small_cnn-seed0"
    model = train.small_cnn(4)
    model.load_state_dict(checkpoint.read(run, "cpu")["model"])
    dataset = data.read_dataset(trained / "data/small.npz")
    model.eval()
    with torch.no_grad():
        logits = model(data.normalize(torch.from_numpy(dataset.test_images)))
    np.testing.assert_allclose(
        logits.numpy(), runs.read_logits(run / "logits.npy")[0][-1], rtol=1e-4, atol=1e-5
    )


def test_both_losses_see_the_same_start_and_order(workplace):
    starts = []
    for dis in (0, 1):
        train.main([*SMALL_RUN, f"--dis={dis}", "--epochs=1", "--lr=1e-30", "--weight-decay=0"])
        starts.append(
            runs.read_logits(Path(f"runs/small/dis{dis}-small_cnn-seed0/logits.npy"))[0][0]
        )
    np.testing.assert_array_equal(*starts)


def test_resuming_a_complete_run_changes_nothing(study, script):
    run = Path("runs/small/dis1-small_cnn-seed0")
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    assert script("train", *SMALL_RUN, "--dis=1", "--epochs=3", "--resume")[0] == 0
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before


def test_an_existing_run_is_refused_and_overwrite_starts_again(study, script, refused):
    run = Path("runs/small/dis0-small_cnn-seed0")
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    flags = [*SMALL_RUN, "--epochs=2"]
    message = refused("train", *flags)
    assert "--resume" in message and "--overwrite" in message
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before
    (run / "frequency.json").write_text("{}")
    assert script("train", *flags, "--overwrite")[0] == 0
    assert len(history(run)) == 2 and not (run / "frequency.json").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--depth", "25"], ["--depth", "6n + 2"]),
        (["--width", "10"], ["--width", "multiple of 4"]),
        (["--epochs", "0"], ["--epochs"]),
        (["--batch-size", "0"], ["--batch-size"]),
        (["--lr", "0"], ["--lr"]),
        (["--lr", "fast"], ["--lr", "fast"]),
        (["--lr", "nan"], ["--lr"]),
        (["--weight-decay", "-1"], ["--weight-decay"]),
        (["--seed", "-1"], ["--seed"]),
        (["--dis", "2"], ["--dis"]),
        (["--probe", "0"], ["--probe"]),
        (["--probe", "61"], ["--probe", "60"]),
        (["--model", "large"], ["--model", "small_cnn"]),
        (["--data", "nowhere.npz"], ["nowhere.npz", "generate.py"]),
        (["--resume"], ["--resume", "checkpoint.pt"]),
        (["--resume", "--overwrite"], ["--resume", "--overwrite"]),
    ],
)
def test_wrong_flags_are_refused(refused, workplace, flags, words):
    message = refused("train", *SMALL_RUN, *flags)
    assert all(word in message for word in words)
    assert not (workplace / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_without_cuda_is_refused(refused, workplace):
    assert "--device auto" in refused("train", *SMALL_RUN, "--device", "cuda")
    assert not (workplace / "runs").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_training_on_cuda(workplace, script):
    flags = [*SMALL_RUN, "--device=cuda", "--model=shake_resnet", "--depth=8", "--width=4"]
    status, out, _ = script("train", *flags, "--dis=1", "--epochs=2", "--run=a")
    assert status == 0 and torch.cuda.get_device_name() in out
    assert len(history(Path("runs/small/a"))) == 2


@pytest.mark.parametrize("flag", ["--lr=0.1", "--batch-size=8", "--epochs=4", "--no-augment"])
def test_resuming_with_other_settings_is_refused(study, refused, flag):
    before = (study / RUN / "history.jsonl").read_bytes()
    message = refused("train", *SMALL_RUN, "--dis=1", "--epochs=3", "--resume", flag)
    assert flag.strip("-").split("=")[0].replace("no-", "").replace("-", "_") in message
    assert (study / RUN / "history.jsonl").read_bytes() == before


def test_resuming_on_other_data_is_refused(study, refused):
    data.write_dataset(Path("data/small.npz"), make_dataset(seed=1))
    assert "data_sha256" in refused("train", *SMALL_RUN, "--dis=1", "--epochs=3", "--resume")


def test_images_that_the_network_cannot_take(refused, workplace):
    data.write_dataset(Path("data/small.npz"), make_dataset(size=10))
    assert "small_cnn" in refused("train", *SMALL_RUN, "--model=shake_resnet", "--depth=8")
    data.write_dataset(Path("data/small.npz"), make_dataset(size=4))
    assert "8x8" in refused("train", *SMALL_RUN)


def test_a_loss_that_is_not_finite_stops_the_run(workplace, script, monkeypatch):
    calls = []

    def explode(logits, labels):
        calls.append(1)
        return (math.inf if len(calls) == 5 else 1) * nn.functional.cross_entropy(logits, labels)

    monkeypatch.setattr(epoch, "cross_entropy", explode)
    status, _, err = script("train", *SMALL_RUN, "--epochs=3", "--run=a")
    # 60 images are 4 steps an epoch, so the 5th is the first of the second epoch.
    assert status == 1 and err.count("\n") == 1
    assert "epoch 2, step 1:" in err and "--lr" in err and "checkpoint" in err
    assert checkpoint.read(Path("runs/small/a"), "cpu")["epoch"] == 1
    assert len(history(Path("runs/small/a"))) == 1


def test_a_learning_rate_that_diverges_ends_with_status_1(workplace, script):
    status, _, err = script("train", *SMALL_RUN, "--epochs=3", "--lr=1e30", "--run=a")
    assert status == 1 and "not finite" in err
    assert checkpoint.read(Path("runs/small/a"), "cpu")["epoch"] == 0


def test_every_image_size_without_wrong_labels(workplace, script):
    clean = make_dataset(size=12)
    clean.train_labels[:] = clean.clean_labels
    data.write_dataset(Path("data/small.npz"), clean)
    assert script("train", *SMALL_RUN, "--epochs=1", "--run=a")[0] == 0
    assert history(Path("runs/small/a"))[0]["memorized"] is None


def test_validation_accuracy_is_that_of_the_given_labels(workplace, script):
    data.write_dataset(Path("data/small.npz"), make_dataset(val=30))
    assert script("train", *SMALL_RUN, "--epochs=2", "--run=a")[0] == 0
    dataset, model = data.read_dataset(Path("data/small.npz")), train.small_cnn(4)
    model.load_state_dict(checkpoint.read(Path("runs/small/a"), "cpu")["model"])
    prediction = epoch.evaluate(model, torch.from_numpy(dataset.val_images)).argmax(1).numpy()
    expected = 100 * np.mean(prediction == dataset.val_labels)
    assert history(Path("runs/small/a"))[1]["val_accuracy"] == pytest.approx(expected)


def test_without_validation_images_there_is_no_such_accuracy(trained):
    assert history(trained / RUN)[0]["val_accuracy"] is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--teacher=previous-epoch"], ["--teacher", "--dis=1"]),
        (["--soft"], ["--soft", "--dis=1"]),
        (["--weight=0.2"], ["--weight", "--dis=1"]),
        (["--dis=1", "--weight=1.5"], ["--weight", "0 to 1"]),
        (["--dis=1", "--weight=nan"], ["--weight"]),
        (["--dis=1", "--teacher=uniform"], ["uniform", "--weight"]),
        (["--dis=1", "--teacher=uniform", "--weight=0.1", "--soft"], ["uniform", "--soft"]),
        (["--dis=1", "--teacher=mine"], ["--teacher", "previous-epoch"]),
    ],
)
def test_wrong_teachers_are_refused(refused, workplace, flags, words):
    message = refused("train", *SMALL_RUN, *flags)
    assert all(word in message for word in words)
    assert not (workplace / "runs").exists()


def test_evaluation_of_a_run(study, script, refused):
    status, out, err = script("train", "--evaluate", RUN, "--device=cpu")
    last = history(RUN)[-1]
    assert status == 0 and err == "" and out.count("\n") == 1
    assert f"epoch 3, test accuracy {last['test_accuracy']:.2f}%" in out
    assert f"test loss {last['test_cross_entropy']:.4f}" in out
    data.write_dataset(Path("data/small.npz"), make_dataset(seed=1))
    assert "trained on" in refused("train", "--evaluate", RUN)
    assert "nowhere" in refused("train", "--evaluate", "nowhere")


@pytest.mark.skipif(torch.cpu._is_avx512_bf16_supported(), reason="this processor has bfloat16")
def test_bfloat16_is_refused_where_it_would_be_slow(refused, workplace):
    assert "--no-amp" in refused("train", *SMALL_RUN, "--amp")


@pytest.mark.skipif(not shutil.which("c++"), reason="--compile needs a C++ compiler on a CPU")
def test_compiled_steps_are_the_plain_ones(workplace, script):
    data.write_dataset(Path("data/small.npz"), make_dataset(train=32, test=16))
    flags = [*SMALL_RUN, "--epochs=1", "--dis=1"]  # two steps
    assert script("train", *flags, "--run=plain")[0] == 0
    assert script("train", *flags, "--run=compiled", "--compile")[0] == 0
    plain, compiled = Path("runs/small/plain"), Path("runs/small/compiled")
    for (key, a), (other, b) in zip(
        history(plain)[0].items(), history(compiled)[0].items(), strict=True
    ):
        assert key == other and b == (a if a is None else pytest.approx(a, rel=1e-3))
    states = [checkpoint.read(run, "cpu")["model"] for run in (plain, compiled)]
    assert list(states[0]) == list(states[1])
    for key, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][key], rtol=1e-3, atol=1e-4)
