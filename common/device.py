"""The device that --device names. torch is imported inside the function."""

from common.errors import UserError

DEVICES = ("auto", "cpu", "cuda")


def choose_device(name: str):
    """The torch.device for --device auto, cpu or cuda: a GPU if there is one, unless told cpu.

    Raises UserError if a GPU is asked for and there is none.
    """
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device found; use --device auto or cpu")
    if name != "cpu" and torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("cpu")
