"""No device is the host's: what trains on a CPU trains elsewhere, and no step waits for the device.

far_device.py has the device: the CPU under another name, so all numbers are equal to the bit.
"""

import itertools
import os
from pathlib import Path

import pytest
import torch
from far_device import CPU, FAR, STEP, FarTensor, teach_torch
from helpers import SMALL_RUN, history, make_dataset
from replayed_steps import LOSSES, MODELS, StandIn, make_settings

import frequency
import spectrum
import training.prepare
from common import run_folder
from dataset import batches
from dataset.data_file import write_dataset
from training.epoch import train_epoch
from training.prepare import prepare
from training.run import send_data
from training.statistics import EVALUATION_BATCH, evaluate
from training.step import training_step


@pytest.fixture
def far(monkeypatch):
    """The mode in which FAR is a device; its numbers are those of CPU, its batches as well."""
    for device in (CPU, FAR):
        monkeypatch.setitem(EVALUATION_BATCH, device.type, 16)
    batches._pixel_statistics.cache_clear()
    yield teach_torch(monkeypatch)
    batches._pixel_statistics.cache_clear()


# The device itself


def test_tensors_of_two_devices_are_refused(far):
    with far:
        x, index = torch.arange(6.0).to(FAR), torch.tensor([1, 2])
        assert isinstance(x, FarTensor) and x.device == FAR
        for refused in (lambda: x + torch.ones(6), lambda: x[index]):
            with pytest.raises(RuntimeError, match="two devices"):
                refused()
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(3, device=FAR, generator=torch.Generator())
        assert (x[index.to(FAR)] * torch.tensor(2.0)).cpu().tolist() == [2, 4]


READS = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool((x > 0).all()),
    "cpu": lambda x: x.cpu(),
    "mask": lambda x: x[x > 2],
    "masked assignment": lambda x: x.__setitem__(x > 2, 0),
    "nonzero": lambda x: (x > 2).nonzero(),
    "equal": lambda x: torch.equal(x, x),
    "sent": lambda x: torch.ones(3).to(x.device),
    "written": lambda x: x.copy_(torch.ones(6)),
}


@pytest.mark.parametrize("name", READS)
def test_waits_are_noted(far, name):
    with far:
        x = torch.arange(6.0).to(FAR)
        far.events.clear()
        (x * 2).square().sum().add_(x[1:3].mean()).clamp(max=x[0])
        assert far.events == []
        READS[name](x)
        assert far.events


# Training


def train_epochs(settings, device, count=44, make_step=training_step):
    """Two epochs in batches of 16, the last of 12; returns records, predictions and outputs."""
    dataset, results, previous = make_dataset(train=count), [], None
    data = send_data(dataset, torch.arange(4).numpy(), device)
    model, optimizer = prepare(settings, dataset, device)
    step = make_step(model, optimizer, settings)
    for epoch in (1, 2):
        record, predictions = train_epoch(
            model, optimizer, data.train, settings, epoch, previous, step
        )
        previous = settings.loss_function.remember(previous, predictions, epoch)
        results += [record, predictions.cpu().tolist()]
    return [*results, evaluate(model, data.test[0]).cpu().tolist()]


def assert_no_step_waits(events, epochs=2, steps=3):
    """All steps of an epoch follow one another, without a wait between them."""
    groups = [(key, len(list(group))) for key, group in itertools.groupby(events)]
    assert [count for key, count in groups if key == STEP] == [steps] * epochs, events


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("loss", LOSSES)
def test_epochs_elsewhere_are_those_of_the_cpu_and_no_step_waits(far, loss, model):
    settings = make_settings(loss, model)
    expected = train_epochs(settings, CPU)
    far.events.clear()
    with far:
        assert train_epochs(settings, FAR) == expected
    assert_no_step_waits(far.events)


@pytest.mark.slow
def test_without_augmentation_and_with_replayed_steps(far):
    def replayed(model, optimizer, settings):
        return StandIn(training_step(model, optimizer, settings), settings.batch_size)

    settings = make_settings("previous-epoch", "shake_resnet", augment=False)
    expected = train_epochs(settings, CPU, count=76)
    far.events.clear()
    with far:
        graphed = make_settings("previous-epoch", "shake_resnet", augment=False, cuda_graphs=True)
        assert train_epochs(graphed, FAR, 76, replayed) == expected
    assert_no_step_waits(far.events, steps=5)


def test_evaluation_waits_for_nothing(far):
    settings, dataset = make_settings("batch"), make_dataset()
    with far:
        model, _ = prepare(settings, dataset, FAR)
        images = torch.from_numpy(dataset.test_images).to(FAR)
        evaluate(model, images)  # sends the pixel statistics
        far.events.clear()
        logits = evaluate(model, images)
        assert far.events == [] and logits.device == FAR and logits.shape == (40, 4)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["--teacher=previous-epoch", "--teacher=previous-epochs"])
def test_run_elsewhere_is_that_of_the_cpu(far, workplace, script, monkeypatch, loss):
    # Started, stopped, resumed, evaluated, filtered, measured along a kernel's eigenvectors.
    write_dataset(Path("data/small.npz"), make_dataset(train=44, val=10))
    here, there = Path("runs/small/here"), Path("runs/small/there")
    flags = [*SMALL_RUN, "--dis=1", "--epochs=3", loss]
    flags += ["--momentum=0.9"] if loss.endswith("epochs") else []
    measures = {"frequency": ["--delta", 1e-3, 100, 400], "spectrum": ["--delta", 400]}
    assert script("train", *flags, "--run=here")[0] == 0
    for name, deltas in measures.items():
        assert script(name, here, *deltas, "--device=cpu")[0] == 0
    evaluated = script("train", "--evaluate", here, "--device=cpu")[1]

    for module in (training.prepare, frequency, spectrum):
        monkeypatch.setattr(module, "choose_device", lambda name: FAR)
    batches._pixel_statistics.cache_clear()
    far.events.clear()
    with far:
        assert script("train", *flags, "--run=there")[0] == 0
        assert_no_step_waits(far.events, epochs=3)
        os.replace(there / "checkpoint.prev.pt", there / "checkpoint.pt")
        assert "from epoch 3" in script("train", *flags, "--run=there", "--resume")[1]
        for name, deltas in measures.items():
            assert script(name, there, *deltas)[0] == 0
        assert script("train", "--evaluate", there)[1] == evaluated.replace("here", "there")
    assert history(here) == history(there)
    for name in (*run_folder.LOGITS, "frequency.json", "memorization.json", "spectrum.json"):
        assert (here / name).read_bytes() == (there / name).read_bytes(), name
