"""The benchmarks: each runs, and its plain reference computes what the project computes."""

import re

import frequency_speed
import numpy as np
import pytest
import tangent_kernel_speed
import torch
import training_speed

from training.settings import RunSettings

CPU = torch.device("cpu")
NETWORKS = {
    "shake_resnet": {"depth": 14, "width": 4},
    "small_cnn": {"model": "small_cnn"},
}


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_the_plain_loop_trains_the_same_network(network):
    settings = RunSettings(
        batch_size=16, epochs=3, lr=0.02, augment=False, amp=False, **NETWORKS[network]
    )
    dataset = training_speed.random_dataset(40, 20, size=8)
    loops = training_speed.PlainLoop, training_speed.ProjectLoop
    plain, project = (loop(settings, dataset, CPU) for loop in loops)
    for _ in range(2):
        (loss, _), (expected, _) = project(), plain()
        assert loss == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_the_plain_references_measure_the_same():
    *_, expected = frequency_speed.run_reference(100)
    _, _, shares, _ = frequency_speed.run_project(100, 3, 1, CPU)
    np.testing.assert_allclose(shares, expected, rtol=1e-5)
    ways = tangent_kernel_speed.full_jacobians, tangent_kernel_speed.project
    expected, kernel = (tangent_kernel_speed.run(way, 4)[2] for way in ways)
    np.testing.assert_allclose(kernel, expected, rtol=1e-4, atol=1e-5 * expected.max())


@pytest.mark.slow
def test_a_ratio_is_printed_with_the_machine(capsys):
    flags = "--network small_cnn --variants float32 --images 64 --repeats 1 --device cpu"
    training_speed.main(flags.split())
    out = capsys.readouterr().out
    assert f"torch {torch.__version__}" in out.splitlines()[0]
    assert re.search(r"\d+\.\d+ times the plain", out)
