"""A stand-in for recorded training steps on CPUs; settings of every loss, teacher and network."""

import pytest

from training.graphs import GraphedStep
from training.settings import RunSettings

LOSSES = {
    "cross-entropy": {},
    "batch": {"loss": "self-distillation"},
    "soft": {"loss": "self-distillation", "soft": True},
    "previous-epoch": {"loss": "self-distillation", "teacher": "previous-epoch"},
    "previous-epochs": {
        **{"loss": "self-distillation", "teacher": "previous-epochs"},
        **{"momentum": 0.9, "soft": True},
    },
    "uniform": {"loss": "self-distillation", "teacher": "uniform", "weight": 0.2},
}
NETWORKS = {"small_cnn": {}, "shake_resnet": {"depth": 8, "width": 4}}
MODELS = ["small_cnn", pytest.param("shake_resnet", marks=pytest.mark.slow)]


class CalledAgain:
    """What stands for a recorded graph: it calls the step again.

    It treats memory as a graph does: it reads the inputs it was recorded with, and overwrites its
    outputs.
    """

    def __init__(self, step, inputs, outputs):
        self.step, self.inputs, self.outputs, self.replays = step, inputs, outputs, 0

    def replay(self):
        self.replays += 1
        for index, result in enumerate(self.step(*self.inputs)):
            if self.replays == 1:
                self.outputs.append(result)
            elif result is not None:
                self.outputs[index].copy_(result)


class StandIn(GraphedStep):
    """A GraphedStep for CPUs, which counts what it does."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.plain, self.graphs = 0, []

    def run(self, inputs):
        self.plain += 1
        return self.step(*inputs)

    def record(self):
        outputs = []
        self.graphs.append(CalledAgain(self.step, self.inputs, outputs))
        return self.graphs[-1], outputs


def make_settings(loss, model="small_cnn", **changed):
    values = {"epochs": 3, "batch_size": 16, "lr": 0.05, **LOSSES[loss], **NETWORKS[model]}
    return RunSettings(model=model, **{**values, **changed})
