"""What a device cannot do is one line: too many processes, --compile, --evaluate, its memory."""

import pytest
import torch
from helpers import SMALL_RUN

from common.errors import UserError
from training import distributed, prepare, run
from training.settings import RunSettings


@pytest.fixture
def two_gpus(monkeypatch):
    """This process stands for the second of two that torchrun started, on a machine with GPUs."""
    for name, value in {"WORLD_SIZE": 2, "RANK": 1, "LOCAL_RANK": 1}.items():
        monkeypatch.setenv(name, str(value))
    chosen = []
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(prepare, "choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: f"a GPU of {chosen}")
    return chosen


def test_a_process_has_a_gpu_of_its_own(two_gpus):
    device, settings, name = prepare.prepare_device(RunSettings())
    assert device == torch.device("cuda:1") and settings.amp
    # The name is that of its own GPU.
    assert two_gpus == [device] and name == f"a GPU of {two_gpus}, 2 processes"


def test_more_processes_than_gpus(two_gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"process 2 .* no GPU; use --nproc-per-node=1,"):
        prepare.prepare_device(RunSettings())
    assert not two_gpus
    cpu = torch.device("cpu")
    assert distributed.own_device(cpu) == cpu


def test_compile_on_several_gpus(two_gpus, monkeypatch):
    with pytest.raises(UserError, match="--compile: not with several GPUs"):
        prepare.prepare_device(RunSettings(compile=True))
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert prepare.prepare_device(RunSettings(compile=True))[0] == torch.device("cuda")


def test_evaluate_on_several_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"--evaluate: one process .* leave torchrun out"):
        run.evaluate_run(tmp_path, "cpu")


@pytest.mark.parametrize("flags", [[], ["--evaluate", "runs/small/a"]])
def test_out_of_memory_on_a_gpu(workplace, refused, monkeypatch, flags):
    def fail(*args):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(run, "train", fail)
    monkeypatch.setattr(run, "evaluate_run", fail)
    line = refused("train", *SMALL_RUN, *flags)
    assert "CUDA out of memory; use a lower --batch-size or --width" in line


def test_flags_are_refused_by_one_process_of_a_machine(script, monkeypatch):
    assert script("train", "--bogus")[2].endswith("error: unrecognized arguments: --bogus\n")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert script("train", "--bogus") == (2, "", "")
