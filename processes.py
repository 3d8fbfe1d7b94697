"""One run on several processes: torchrun starts them, DistributedDataParallel joins them.

Each process takes its part of every batch. Without torchrun there is one process, and everything
here leaves what it is given as it is.
"""

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

PATIENCE = timedelta(minutes=10)  # of one process for the others


def count() -> int:
    """How many processes torchrun started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """Which of them this is, from 0."""
    return int(os.environ.get("RANK", 0))


def is_main() -> bool:
    """Whether this is the one that writes and prints."""
    return rank() == 0


def join(device: torch.device) -> torch.device:
    """Meet the other processes; returns the device of this one.

    Processes on GPUs speak NCCL and take one each, processes on CPUs speak gloo.
    """
    if count() == 1:
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    return device


def leave() -> None:
    """Part from the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def wait() -> None:
    """Return when all processes have come here."""
    if count() > 1:
        dist.barrier()


def parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """The model whose gradients are means over processes; its parameters are those of `model`.

    On GPUs BatchNorm takes its statistics over the whole batch; PyTorch has no such layer for CPUs,
    where each process takes those of its own part.
    """
    if count() == 1:
        return model
    if device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return nn.parallel.DistributedDataParallel(
        model, [device.index] if device.type == "cuda" else None
    )


def share_buffers(model: nn.Module) -> None:
    """Make BatchNorm's running statistics those of the first process, which writes them."""
    if count() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def add_up(tensor: Tensor) -> Tensor:
    """The sum of `tensor` over processes, in its place."""
    if count() > 1:
        dist.all_reduce(tensor)
    return tensor
