"""The device of a run, its network and its optimizer."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from common.device import choose_device
from common.errors import UserError
from dataset.data_file import DataSet
from models import MODELS, check_images
from training import distributed
from training.epoch import seed_epoch
from training.graphs import check_cuda_graphs
from training.settings import RunSettings

MOMENTUM = 0.9


@contextmanager
def explained_memory() -> Iterator[None]:
    """A block in which UserError names the remedy when the memory of the GPU does not suffice."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            "CUDA out of memory; use a lower --batch-size or --width, or a GPU that no other "
            "process uses; the last good checkpoint stays"
        ) from error


def prepare_device(settings: RunSettings) -> tuple[torch.device, RunSettings, str]:
    """The device, the settings with `amp` decided for it, and its name for config.json.

    Raises UserError if the device, --amp, --compile or --cuda-graphs is asked for and not
    available.
    """
    device = distributed.own_device(choose_device(settings.device))
    check_cuda_graphs(settings, device)
    ranks = distributed.world_size()
    processes = f", {ranks} processes" if ranks > 1 else ""
    if device.type == "cuda":
        if settings.compile and ranks > 1:
            raise UserError(
                "--compile: not with several GPUs, which synchronize every BatchNorm; leave it "
                "out, or train one run on each GPU without torchrun"
            )
        torch.backends.cudnn.benchmark = True  # the shapes stay the same
        amp = True if settings.amp is None else settings.amp
        return device, replace(settings, amp=amp), torch.cuda.get_device_name() + processes
    # A processor without this instruction takes many times longer in bfloat16 than in float32.
    if settings.amp and not torch.cpu._is_avx512_bf16_supported():
        raise UserError("--amp: this processor has no bfloat16 instruction; use --no-amp")
    name = f"CPU {platform.machine()}, {torch.get_num_threads()} threads{processes}"
    return device, replace(settings, amp=bool(settings.amp)), name


def make_model(settings: RunSettings, dataset: DataSet) -> nn.Module:
    """The network for the data set's images. Raises UserError if they do not fit each other."""
    check_images(settings.model, *dataset.image_size)
    return MODELS[settings.model](dataset.num_classes, settings.depth, settings.width)


def prepare(
    settings: RunSettings, dataset: DataSet, device: torch.device
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The network on its device, with parameters drawn from the seed, and its optimizer."""
    seed_epoch(settings.seed, 0)
    model = make_model(settings, dataset).to(device, memory_format=torch.channels_last)
    if settings.compile:
        model.compile()
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=settings.lr,
        momentum=MOMENTUM,
        weight_decay=settings.weight_decay,
        nesterov=True,
        fused=True,
    )
    return model, optimizer


def averaged(model: nn.Module, decay: float) -> AveragedModel | None:
    """A moving average of the network's parameters and BatchNorm buffers; None if decay is 0.

    The first `update_parameters` copies the network; each later one moves the average,
    w_avg <- decay w_avg + (1 - decay) w. Training does not read it.
    """
    if not decay:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
