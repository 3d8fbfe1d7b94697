"""One run on several processes: torchrun starts them, DistributedDataParallel joins them.

Each rank takes its share of every batch. Without torchrun there is one process, and everything
here returns what it is given.
"""

import gc
import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

TIMEOUT = timedelta(minutes=10)  # of one rank waiting for the others


def world_size() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", 0))


def is_main() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0


def init(device: torch.device) -> torch.device:
    """Join the other processes; returns the device of this one.

    Processes on GPUs use NCCL and one GPU each, processes on CPUs use gloo.
    """
    if world_size() == 1:
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        device_id = device if device.type == "cuda" else None
        dist.init_process_group(backend, timeout=TIMEOUT, device_id=device_id)
    return device


def destroy() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        # DistributedDataParallel objects sit in reference cycles; one that is alive when the
        # process group ends can abort the process at exit.
        gc.collect()
        dist.destroy_process_group()


def barrier() -> None:
    """Return when all processes have come to this call."""
    if world_size() > 1:
        dist.barrier()


def wrap_ddp(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with gradients averaged over processes; its parameters are those of `model`.

    On GPUs BatchNorm takes its statistics over the whole batch. PyTorch has no such layer for CPUs,
    where each rank takes the statistics of its own share.
    """
    if world_size() == 1:
        return model
    if device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    device_ids = [device.index] if device.type == "cuda" else None
    # Buffers are sent once an epoch, by broadcast_buffers, and not at every forward pass.
    return nn.parallel.DistributedDataParallel(model, device_ids, broadcast_buffers=False)


def broadcast_buffers(model: nn.Module) -> None:
    """Give all ranks the running statistics of BatchNorm of rank 0, which writes them."""
    if world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """The sum of `tensor` over ranks, in place."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def share_of_batch(batch_size: int) -> float:
    """The fraction of a batch's images that this rank takes: every world_size-th of them."""
    return len(range(rank(), batch_size, world_size())) / batch_size
