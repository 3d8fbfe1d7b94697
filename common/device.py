"""The device that --device names. torch is imported inside the function."""

from common.errors import UserError

DEVICES = ("auto", "cpu", "cuda")


def choose_device(name: str):
    """The torch.device for --device auto, cpu or cuda: `auto` uses a GPU if there is one.

    Raises UserError for `cuda` without a GPU.
    """
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device found; use --device auto or cpu")
    if name != "cpu" and torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("cpu")
