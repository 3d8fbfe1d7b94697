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

from common.command_line import UserError, under_torchrun

TIMEOUT = timedelta(minutes=10)  # of one rank waiting for the others


def world_size() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if under_torchrun() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ["RANK"]) if under_torchrun() else 0


def is_main() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0


def own_device(device: torch.device) -> torch.device:
    """The device of this process; a GPU of its own, which becomes the current one.

    Raises UserError if torchrun started more processes than the machine has GPUs.
    """
    if world_size() == 1 or device.type != "cuda":
        return device
    local_rank, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local_rank >= count:
        raise UserError(
            f"torchrun: process {local_rank + 1} of this machine has no GPU; use "
            f"--nproc-per-node={count}, or --device cpu"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def init(device: torch.device) -> None:
    """Join the other processes, by NCCL if this process has a GPU, by gloo on CPUs."""
    if world_size() > 1 and not dist.is_initialized():
        gpu = device.type == "cuda"
        backend, device_id = ("nccl", device) if gpu else ("gloo", None)
        dist.init_process_group(backend, timeout=TIMEOUT, device_id=device_id)


def destroy() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        # A DistributedDataParallel object in a reference cycle that outlives the process group can
        # abort the process at exit.
        gc.collect()
        dist.destroy_process_group()


def barrier() -> None:
    """Return when all processes have come to this call."""
    if world_size() > 1:
        dist.barrier()


def wrap_ddp(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with gradients averaged over processes; its parameters are those of `model`.

    On GPUs BatchNorm takes its statistics over the whole batch, on CPUs over each rank's share.
    """
    if world_size() == 1:
        return model
    device_ids = None
    if device.type == "cuda":
        model, device_ids = nn.SyncBatchNorm.convert_sync_batchnorm(model), [device.index]
    parallel = nn.parallel.DistributedDataParallel(model, device_ids)
    # Buffers are sent once per epoch, by broadcast_buffers, and not at every forward pass. The
    # argument of the same name is deprecated in torch 2.14, and its successor is not in 2.11.
    parallel.broadcast_buffers = False
    return parallel


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
