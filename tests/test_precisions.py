"""--amp on a CPU: both precisions are timed, the faster one is named, and nothing else changes."""

import re
from pathlib import Path

import pytest
import torch
from helpers import SMALL_RUN, history, make_dataset

from training import run
from training.settings import RunSettings

LINE = r"--amp: a step takes ([\d.]+) s in bfloat16, ([\d.]+) s in float32; (\S+) is faster here"


def test_the_faster_precision_is_named_and_random_numbers_stay():
    settings = RunSettings(model="small_cnn", batch_size=16, amp=True, loss="self-distillation")
    before = torch.get_rng_state()
    line = run.compare_precisions(settings, make_dataset(), steps=1)
    assert torch.equal(torch.get_rng_state(), before)
    bfloat16, float32, faster = re.fullmatch(LINE, line).groups()
    if bfloat16 != float32:
        assert faster == ("--amp" if float(bfloat16) < float(float32) else "--no-amp")


def test_the_comparison_changes_no_byte_of_a_run(workplace, script, monkeypatch):
    if not torch.cpu._is_avx512_bf16_supported():
        pytest.skip("this processor has no bfloat16 instruction")
    flags = [*SMALL_RUN, "--amp", "--dis=1", "--epochs=2", "--ema-decay=0.9"]
    status, out, _ = script("train", *flags, "--run=compared")
    assert status == 0 and re.search(LINE, out)
    monkeypatch.setattr(run, "compare_precisions", lambda *_: "")
    assert script("train", *flags, "--run=plain")[0] == 0
    # The records have the digests of all outputs.
    assert history(Path("runs/small/compared")) == history(Path("runs/small/plain"))
    assert "--amp" not in script("train", *SMALL_RUN, "--epochs=1", "--run=float32")[1]
