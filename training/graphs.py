"""The whole training step as one CUDA graph: recorded once, then replayed.

A step has many small kernels, which the host launches one by one. A replay launches all of them at
once, without Python.
"""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from common.errors import UserError
from training import distributed
from training.settings import RunSettings
from training.step import StepResult

WARM_UP = 3  # real steps before the recording: cuDNN searches, optimizer and allocator get memory


def check_cuda_graphs(settings: RunSettings, device: torch.device) -> None:
    """Raise UserError if --cuda-graphs is asked for where it does not work."""
    if settings.cuda_graphs and device.type != "cuda":
        raise UserError("--cuda-graphs needs a CUDA device; leave it out on a CPU")
    if settings.cuda_graphs and distributed.world_size() > 1:
        raise UserError("--cuda-graphs is for one process; leave it out under torchrun")


class GraphedStep:
    """A training step that CUDA records and replays for full batches of one kind.

    Smaller batches, and the first WARM_UP full ones, run as they are. Where the kind changes (from
    the second epoch on, there are previous predictions), the step is recorded anew. It reads model
    and optimizer at the addresses that they have then: load a checkpoint before.
    """

    def __init__(self, step: Callable[..., StepResult], batch_size: int):
        self.step, self.batch_size = step, batch_size
        self.shapes: list[torch.Size] = []
        self.calls, self.graph = 0, None

    def __call__(self, *inputs: Tensor, share: float = 1) -> StepResult:
        """As training_step's function, with the learning rate as a tensor on the device.

        share: 1, since there is one process.
        """
        if len(inputs[0]) < self.batch_size:
            return self.run(inputs)
        shapes = [tensor.shape for tensor in inputs]
        if shapes != self.shapes:
            self.shapes, self.calls, self.graph, self.outputs = shapes, 0, None, None
        self.calls += 1
        if self.calls <= WARM_UP:
            return self.run(inputs)
        if self.graph is None:
            self.inputs = [tensor.clone() for tensor in inputs]
            self.graph, self.outputs = self.record()
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.graph.replay()
        # The next replay overwrites its outputs.
        return tuple(None if output is None else output.clone() for output in self.outputs)

    @cached_property
    def stream(self) -> torch.cuda.Stream:
        """The stream of recording: autograd remembers on which one a parameter was first used."""
        return torch.cuda.Stream()

    def run(self, inputs: tuple[Tensor, ...]) -> StepResult:
        """The step as it is, on the stream of the recording."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            outputs = self.step(*inputs)
        torch.cuda.current_stream().wait_stream(self.stream)
        return outputs

    def record(self) -> tuple[torch.cuda.CUDAGraph, StepResult]:
        """Record the step on self.inputs, without running it; returns the graph and its outputs.

        The shake coefficients come from CUDA's default generator, which a recording registers: each
        replay reads the generator's seed and offset, and advances the offset as the step would. So
        torch.manual_seed holds for replays, and they draw what the plain steps of an epoch draw.
        """
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            outputs = self.step(*self.inputs)
        return graph, outputs
