"""--ema-decay: the averaged weights against a slow loop, on disk, and in what is evaluated."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SMALL_RUN, equal, history, make_dataset

from common.run_folder import LOGITS, read_config, read_outputs
from dataset.data_file import write_dataset
from training import checkpoint
from training.epoch import evaluate, train_epoch
from training.run import load_network, make_trained
from training.settings import RunSettings

FLAGS = [
    *SMALL_RUN,
    "--model=shake_resnet",
    "--depth=8",
    "--width=4",
    "--dis=1",
    "--teacher=previous-epoch",
    "--epochs=2",
]


def test_the_average_against_a_slow_loop_in_float64():
    dataset, decay = make_dataset(train=40), 0.7
    settings = RunSettings(
        model="small_cnn", batch_size=16, augment=False, epochs=2, lr=0.05, ema_decay=decay
    )
    trained = make_trained(settings, dataset, torch.device("cpu"))
    model, average, slow = trained.model, trained.average, []

    def follow(*_):
        for k, tensor in enumerate((*model.parameters(), *model.buffers())):
            now = tensor.detach().double().numpy().copy()
            if len(slow) <= k:
                slow.append(now)  # the first step's weights are where the average starts
            else:
                slow[k] = decay * slow[k] + (1 - decay) * now

    trained.optimizer.register_step_post_hook(follow)
    arrays = dataset.train_images, dataset.train_labels, dataset.clean_labels
    train_set = [torch.from_numpy(array) for array in arrays]
    train_epoch(model, trained.optimizer, trained.loss, train_set, settings, 1, average)
    assert int(average.n_averaged) == 3
    own = (*model.parameters(), *model.buffers())
    averages, moved = (*average.module.parameters(), *average.module.buffers()), 0
    for tensor, latest, expected in zip(averages, own, slow, strict=True):
        if tensor.is_floating_point():
            np.testing.assert_allclose(tensor.detach(), expected, rtol=1e-5, atol=1e-7)
            moved += not torch.equal(tensor, latest)
    assert moved > 10
    # Without a decay there is no average.
    assert make_trained(replace(settings, ema_decay=0.0), dataset, "cpu").average is None


def test_the_average_is_evaluated_and_kept_and_training_does_not_see_it(workplace, script):
    dataset = make_dataset(val=20)
    write_dataset(Path("data/small.npz"), dataset)
    assert script("train", *FLAGS, "--ema-decay=0.9", "--run=ema")[0] == 0
    assert script("train", *FLAGS, "--run=plain")[0] == 0
    run, plain = Path("runs/small/ema"), Path("runs/small/plain")
    assert read_config(run)["network"] == "shake8-2x4d, averaged weights, decay 0.9"
    content, other = checkpoint.read(run), checkpoint.read(plain)
    for part in ("model", "optimizer", "previous"):
        assert equal(content[part], other[part])
    assert other["average"] is None and int(content["average"]["n_averaged"]) == 8
    trained = ("train_objective", "train_accuracy", "agreement", "lr")
    for record, expected in zip(history(run), history(plain), strict=True):
        assert all(record[name] == expected[name] for name in trained)
    for name in LOGITS:
        assert not np.array_equal(read_outputs(run, name), read_outputs(plain, name))
    model, epoch = load_network(run, dataset, torch.device("cpu"))
    outputs = evaluate(model, torch.from_numpy(dataset.test_images))
    assert epoch == 2 and torch.equal(
        outputs, torch.from_numpy(read_outputs(run, LOGITS[0])[-1].copy())
    )
    accuracy = history(run)[-1]["test_accuracy"]
    assert f"test accuracy {accuracy:.2f}%" in script("train", "--evaluate", run)[1]


@pytest.mark.parametrize("decay", ["1", "-0.1", "nan", "much"])
def test_a_decay_outside_0_to_1_is_refused(refused, decay):
    assert "--ema-decay" in refused("train", f"--ema-decay={decay}")
