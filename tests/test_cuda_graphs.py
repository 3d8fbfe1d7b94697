"""training/graphs.py: replayed steps are the plain ones, over epochs, losses and teachers.

On a CPU nothing can be recorded: a stand-in (replayed_steps.py) replays by calling again.
"""

import math
import os
from pathlib import Path

import pytest
import torch
from helpers import SMALL_RUN, assert_equal_runs, history, make_dataset
from replayed_steps import LOSSES, MODELS, StandIn, make_settings

import training.prepare
import training.run
from common.errors import UserError
from common.run_folder import read_config
from dataset.data_file import write_dataset
from training import checkpoint
from training.epoch import train_epoch
from training.graphs import WARM_UP, GraphedStep, check_cuda_graphs
from training.prepare import prepare
from training.run import send_data
from training.step import training_step


def train_epochs(settings, step_class=None, device=None, epochs=3):
    """Train on 76 images in batches of 16; returns the records, the network, optimizer and step."""
    device = device or torch.device("cpu")
    dataset = make_dataset(train=76)
    data = send_data(dataset, torch.arange(4).numpy(), device)
    model, optimizer = prepare(settings, dataset, device)
    step = training_step(model, optimizer, settings)
    step = step_class(step, settings.batch_size) if step_class else step
    records, previous = [], None
    for epoch in range(1, epochs + 1):
        record, predictions = train_epoch(
            model, optimizer, data.train, settings, epoch, previous, step
        )
        previous = settings.loss_function.remember(previous, predictions, epoch)
        records.append((record, predictions.tolist()))
    return records, model, optimizer, step


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("loss", LOSSES)
def test_replayed_epochs_are_the_plain_ones(loss, model):
    plain, network, plain_optimizer, _ = train_epochs(make_settings(loss, model))
    settings = make_settings(loss, model, cuda_graphs=True)
    replayed, other, optimizer, step = train_epochs(settings, StandIn)
    assert replayed == plain
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[key]), key
    # Rates are numbers again, so that checkpoints are the same.
    assert optimizer.param_groups[0]["lr"] == plain_optimizer.param_groups[0]["lr"]
    assert isinstance(optimizer.param_groups[0]["lr"], float)
    # Each epoch has four full batches and one of 12 images. With previous predictions, the step of
    # the first epoch is not that of the others.
    kinds = 2 if "previous" in loss else 1
    assert len(step.graphs) == kinds and step.plain == 3 + kinds * WARM_UP
    assert sum(graph.replays for graph in step.graphs) == 12 - kinds * WARM_UP


def test_batches_that_are_never_full_are_not_recorded():
    settings = make_settings("batch", batch_size=100, cuda_graphs=True)
    replayed, _, _, step = train_epochs(settings, StandIn)
    assert replayed == train_epochs(make_settings("batch", batch_size=100))[0]
    assert step.graphs == [] and step.plain == 3


def test_results_outlive_the_next_replay():
    step = StandIn(lambda x, rate: (x + rate, x * rate, None, x.argmax(dim=1)), 4)
    rates = torch.arange(8.0)
    batches = [torch.randn(4, 3) for _ in rates]
    results = [step(x, rate) for x, rate in zip(batches, rates, strict=True)]
    for (total, product, none, best), x, rate in zip(results, batches, rates, strict=True):
        assert torch.equal(total, x + rate) and torch.equal(product, x * rate)
        assert none is None and torch.equal(best, x.argmax(dim=1))
    assert step.plain == WARM_UP


def record_on_cpu(patch):
    """Let train.py record on a CPU, by the stand-in."""
    patch.setattr(training.run, "GraphedStep", StandIn)
    patch.setattr(training.prepare, "check_cuda_graphs", lambda settings, device: None)


@pytest.mark.slow
def test_a_run_may_go_on_with_and_without_graphs(workplace, script, monkeypatch):
    record_on_cpu(monkeypatch)
    write_dataset(Path("data/small.npz"), make_dataset(train=76))
    flags = [*SMALL_RUN, "--epochs=3", "--dis=1", "--teacher=previous-epoch"]
    runs = {name: Path("runs/small") / name for name in ("plain", "graphs", "first", "last")}
    assert script("train", *flags, "--run=plain")[0] == 0
    assert script("train", *flags, "--run=graphs", "--cuda-graphs")[0] == 0
    for name, start, end in (("first", ["--cuda-graphs"], []), ("last", [], ["--cuda-graphs"])):
        assert script("train", *flags, f"--run={name}", *start)[0] == 0
        os.replace(runs[name] / checkpoint.PREVIOUS, runs[name] / checkpoint.NAME)
        status, out, _ = script("train", *flags, f"--run={name}", "--resume", *end)
        assert status == 0 and "from epoch 3" in out
    assert read_config(runs["graphs"])["flags"]["cuda_graphs"] is True
    for name in ("graphs", "first", "last"):
        assert_equal_runs(runs["plain"], runs[name], 3)
        saved = [checkpoint.read(runs[n], "cpu")["optimizer"] for n in ("plain", name)]
        assert saved[0]["param_groups"] == saved[1]["param_groups"]


def test_a_run_with_graphs_can_be_evaluated_on_a_cpu(workplace, script):
    with pytest.MonkeyPatch.context() as patch:
        record_on_cpu(patch)
        assert script("train", *SMALL_RUN, "--epochs=1", "--run=a", "--cuda-graphs")[0] == 0
    assert script("train", "--evaluate", "runs/small/a", "--device=cpu")[0] == 0


def test_graphs_are_refused_on_a_cpu(refused, workplace):
    message = refused("train", *SMALL_RUN, "--cuda-graphs")
    assert "--cuda-graphs" in message and "CUDA device" in message
    assert not (workplace / "runs").exists()


def test_graphs_are_refused_for_several_processes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    settings = make_settings("batch", cuda_graphs=True)
    with pytest.raises(UserError, match="torchrun"):
        check_cuda_graphs(settings, torch.device("cuda"))
    check_cuda_graphs(make_settings("batch"), torch.device("cuda"))


@pytest.mark.cuda
def test_replays_draw_what_plain_steps_draw():
    # Random numbers come from the generator's state at the replay, not at the recording.
    def draw(x, rate):
        return x + torch.rand(4, 3, device="cuda") + rate, torch.rand(5, device="cuda"), None, x

    x, step, draws = torch.zeros(4, 3, device="cuda"), GraphedStep(draw, 4), []
    rate = torch.tensor(1.0, device="cuda")
    for function in (draw, step):
        of_function = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            of_function += [function(x, rate)[:2] for _ in range(6)]
        draws.append([tensor for pair in of_function for tensor in pair])
    assert step.graph is not None
    for plain, replayed in zip(*draws, strict=True):
        assert torch.equal(plain, replayed)
    assert len({tensor.sum().item() for tensor in draws[1]}) == len(draws[1])


@pytest.mark.cuda
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("loss", LOSSES)
def test_graph_on_cuda_is_near_plain_steps(loss, model):
    device = torch.device("cuda")
    plain, *_ = train_epochs(make_settings(loss, model), device=device)
    settings = make_settings(loss, model, cuda_graphs=True)
    replayed, *_, step = train_epochs(settings, GraphedStep, device)
    assert step.graph is not None
    for (record, _), (other, _) in zip(plain, replayed, strict=True):
        for name in ("train_objective", "train_cross_entropy", "agreement"):
            # Sums may be taken in another order, and differences grow from step to step.
            value = record[name]
            assert other[name] == (value if value is None else pytest.approx(value, rel=0.02))
            assert value is None or math.isfinite(value)


@pytest.mark.cuda
@pytest.mark.slow
@pytest.mark.parametrize("compiled", [[], ["--compile"]])
def test_run_with_a_graph_on_cuda(workplace, script, compiled):
    write_dataset(Path("data/small.npz"), make_dataset(train=140))
    flags = [*SMALL_RUN, "--device=cuda", "--dis=1", "--epochs=2", *compiled]
    assert script("train", *flags, "--run=plain")[0] == 0
    assert script("train", *flags, "--run=graph", "--cuda-graphs")[0] == 0
    runs = [history(Path("runs/small") / name) for name in ("plain", "graph")]
    for record, other in zip(*runs, strict=True):
        assert other["train_objective"] == pytest.approx(record["train_objective"], rel=0.02)
        assert other["test_cross_entropy"] == pytest.approx(record["test_cross_entropy"], rel=0.05)
