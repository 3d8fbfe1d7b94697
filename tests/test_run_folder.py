"""common/run_folder.py: every file of a run, round trip, damaged, or of another run."""

import errno
import json
import os
import subprocess
from unittest.mock import Mock

import filelock
import helpers
import numpy as np
import pytest
import torch
from helpers import folder_bytes, npy, start_python
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common import run_folder
from common.command_line import UserError
from common.run_folder import FREQUENCY, SAMPLE_LOGITS, TEST_LOGITS, VAL_LOGITS

CONFIG = {
    "loss": "cross-entropy",
    "network": "small_cnn",
    "flags": {"epochs": 3, "seed": 0, "data": "data/a.npz"},
    "data": {"name": "a", "digest": "d"},
}
EPOCHS = np.random.default_rng(0).standard_normal((3, 5, 4)).astype(np.float32)
SAMPLE = np.random.default_rng(1).standard_normal((3, 6, 4)).astype(np.float32)


def write_epochs(run, epochs=EPOCHS, sample=SAMPLE, start=1):
    records = [{"epoch": start + k, "loss": 1 / 3} for k in range(len(epochs))]
    helpers.write_epochs(run, records, {TEST_LOGITS: epochs, SAMPLE_LOGITS: sample})


@pytest.fixture
def run(tmp_path):
    """A run of three epochs, without a network."""
    path = tmp_path / "runs/a/run"
    path.mkdir(parents=True)
    run_folder.write_config(path, CONFIG)
    run_folder.write_sample_indices(path, np.arange(6))
    write_epochs(path)
    return path


# Outputs


def test_outputs_grow_by_an_epoch_and_are_a_plain_npy(tmp_path):
    path = tmp_path / "logits.npy"
    for number, outputs in enumerate(EPOCHS, start=1):
        # Also of what is not contiguous, or of the other byte order.
        run_folder.append_outputs(path, np.asfortranarray(outputs).astype(">f4"), number)
        np.testing.assert_array_equal(np.load(path), EPOCHS[:number])


def test_outputs_round_trip(run):
    found = run_folder.read_outputs(run, TEST_LOGITS, 5, 4)
    assert found.dtype == np.float32 and isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, EPOCHS)
    np.testing.assert_array_equal(run_folder.read_outputs(run, SAMPLE_LOGITS), SAMPLE)
    assert run_folder.output_names(run_folder.read_history(run)[0]) == [TEST_LOGITS, SAMPLE_LOGITS]
    # An epoch that has no record yet, or only a part of one, is not read.
    run_folder.append_outputs(run / TEST_LOGITS, EPOCHS[0], 4)
    with open(run / TEST_LOGITS, "ab") as file:
        file.write(b"half")
    np.testing.assert_array_equal(run_folder.read_outputs(run, TEST_LOGITS), EPOCHS)


def test_an_epoch_is_written_after_the_earlier_ones_or_not_at_all(run):
    before = folder_bytes(run)
    for epoch, outputs in ((3, EPOCHS[0]), (5, EPOCHS[0]), (4, EPOCHS[0, :4])):
        with pytest.raises(UserError, match=r"logits\.npy holds \(3, 5, 4\), not"):
            run_folder.append_outputs(run / TEST_LOGITS, outputs, epoch)
    assert folder_bytes(run) == before


WHOLE = npy(EPOCHS)


def with_shape(shape: str) -> bytes:
    """The outputs under a header with another shape."""
    header = WHOLE[:128].replace(b"3, 5, 4", shape.encode()).rstrip()
    return header.ljust(127) + b"\n" + WHOLE[128:]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (None, "no such file"),
        (WHOLE[:150] + bytes([WHOLE[150] ^ 1]) + WHOLE[151:], "epoch 1 is not what"),
        (npy([EPOCHS[0], np.nan * EPOCHS[1], EPOCHS[2]]), "epoch 2 is not what"),
        (npy(np.roll(EPOCHS, 1, axis=1)), "epoch 1"),  # images in another order
        (npy(EPOCHS[[0, 2, 1]]), "epoch 2"),
        (npy(EPOCHS + 1), "epoch 1"),
        (npy(EPOCHS[:2]), "2 of 3 epochs"),
        (npy(EPOCHS[:, :4]), "epoch 1"),
        (WHOLE[:-1], "2 of 3 epochs"),
        (WHOLE[:50], "damaged header"),
        (npy(np.asfortranarray(EPOCHS)), "not outputs"),
        (npy(EPOCHS.astype(float)), "not outputs"),
        (npy(EPOCHS[0]), "not outputs"),
        (with_shape("-3, 5, 4"), "not outputs"),
        (with_shape("3, 0, 4"), "not outputs"),
        (with_shape("3, 99999999999, 9999999999"), "0 of 3 epochs"),
        (with_shape("(((("), "damaged header"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_damaged_outputs_are_refused_by_name(run, raw, words):
    path = run / TEST_LOGITS
    path.unlink() if raw is None else path.write_bytes(raw)
    with pytest.raises(UserError, match=rf"logits\.npy: .*{words}"):
        run_folder.read_outputs(run, TEST_LOGITS, 5, 4)


def test_outputs_that_are_not_finite_are_refused_even_if_they_are_what_was_written(tmp_path):
    write_epochs(tmp_path, np.full((2, 5, 4), np.inf, np.float32), SAMPLE[:2])
    with pytest.raises(UserError, match="epoch 1 has values that are not finite"):
        run_folder.read_outputs(tmp_path, TEST_LOGITS)


def test_outputs_for_another_data_set_or_without_a_digest_are_refused(run):
    for size in ((4, 4), (5, 3)):
        with pytest.raises(UserError, match="5 images and 4 classes, not of"):
            run_folder.read_outputs(run, TEST_LOGITS, *size)
    (run / VAL_LOGITS).write_bytes(WHOLE)
    with pytest.raises(UserError, match="epoch 1 is not what"):
        run_folder.read_outputs(run, VAL_LOGITS)


@given(st.integers(0, 127), st.binary(min_size=1, max_size=4))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore")  # of numpy's parser
def test_a_header_with_other_bytes_is_refused_or_the_same(run, place, other):
    (run / TEST_LOGITS).write_bytes(WHOLE[:place] + other + WHOLE[place + len(other) :])
    try:
        assert run_folder.read_outputs(run, TEST_LOGITS).tobytes() == EPOCHS.tobytes()
    except UserError as error:
        assert "logits.npy" in str(error)


def test_indices_round_trip_and_what_is_none(run):
    path = run / "train_indices.npy"
    np.testing.assert_array_equal(run_folder.read_sample_indices(run), np.arange(6))
    for raw in (npy(np.arange(6) / 2), npy(np.eye(2, dtype=int)), b"", b"PK"):
        path.write_bytes(raw)
        with pytest.raises(UserError, match=r"train_indices\.npy: damaged"):
            run_folder.read_sample_indices(run)
    path.unlink()
    with pytest.raises(UserError, match=r"train_indices\.npy: no such file"):
        run_folder.read_sample_indices(run)


# History and config


def test_history_round_trip_and_refusal_of_nan(tmp_path):
    records = [{"epoch": 1, "gap": None, "loss": 0.1}, {"epoch": 2, "gap": 3, "loss": 1 / 3}]
    for record in records:
        run_folder.append_history(tmp_path, record)
    with pytest.raises(ValueError, match="not JSON compliant"):
        run_folder.append_history(tmp_path, {"loss": float("nan")})
    assert run_folder.read_history(tmp_path) == (records, "")
    with open(tmp_path / "history.jsonl", "a") as file:
        file.write('{"epoch": 3, "lo')
    found, note = run_folder.read_history(tmp_path)
    assert found == records and "half-written" in note and "history.jsonl" in note


LINE = '{"epoch": 1, "loss": 0.5}\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no epoch yet; repeat"),
        ('{"epoch"', "no epoch yet"),
        (LINE + "nonsense\n" + LINE, "line 2 is damaged"),
        (LINE + "null\n", "line 2"),
        (LINE + "\n", "line 2"),
        (LINE + LINE, "line 2"),
        (LINE + '{"epoch": 2}\n', "line 2"),
        (LINE + '{"epoch": 2, "loss": NaN}\n', "line 2"),
        (LINE + '{"epoch": 2, "loss": "0.5"}\n', "line 2"),
        (LINE + '{"epoch": 2, "loss": {"a": 3}}\n', "line 2"),
        (LINE + '{"epoch": 2, "loss": 1' + 400 * "0" + "}\n", "line 2"),
        (LINE + "[" * 100_000 + "\n", "line 2"),
        ("\xff\n", "line 1"),
    ],
    ids=lambda value: value[:40],
)
def test_damaged_histories_are_refused(tmp_path, text, words):
    with pytest.raises(UserError, match=r"history\.jsonl: no epoch yet"):
        run_folder.read_history(tmp_path)
    (tmp_path / "history.jsonl").write_text(text, "latin-1")
    with pytest.raises(UserError, match=rf"history\.jsonl: .*{words}"):
        run_folder.read_history(tmp_path)


def test_config_round_trip_and_of_another_program(run, tmp_path):
    assert run_folder.read_config(run) == CONFIG
    flags = CONFIG["flags"]
    contents = [{}, [1], {"name": "npm package"}, {**CONFIG, "loss": 3}, {**CONFIG, "flags": None}]
    contents += [{**CONFIG, "flags": other} for other in ({"epochs": 3}, {**flags, "epochs": "3"})]
    for content in (*contents, {**CONFIG, "data": {"name": "a"}}):
        (run / "config.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=r"config\.json: not "):
            run_folder.read_config(run)
    with pytest.raises(UserError, match=r"no such run; make it with train\.py"):
        run_folder.read_config(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"config\.json: no such file"):
        run_folder.read_config(tmp_path)


# Measures


def test_measures_are_tied_to_the_outputs(run):
    assert run_folder.read_measure(run, FREQUENCY) == (None, "")
    digest = run_folder.outputs_digest(run)
    run_folder.write_measure(run, FREQUENCY, {"n": 5, "e_low": [0.5, None]})
    content, note = run_folder.read_measure(run, FREQUENCY)
    assert content == {"measured_from": digest, "n": 5, "e_low": [0.5, None]} and note == ""
    with pytest.raises(ValueError, match="not JSON compliant"):
        run_folder.write_measure(run, FREQUENCY, {"n": float("nan")})
    assert run_folder.read_measure(run, FREQUENCY)[0] == content


@pytest.mark.parametrize(
    "change",
    [
        lambda run: write_epochs(run, EPOCHS[:1], SAMPLE[:1], start=4),
        lambda run: run_folder.write_config(run, {**CONFIG, "data": {"name": "a", "digest": "e"}}),
        lambda run: ((run / "history.jsonl").unlink(), write_epochs(run, EPOCHS + 1)),
    ],
    ids=["another epoch", "another data set", "other outputs"],
)
def test_a_measure_of_other_outputs_or_a_damaged_one_is_not_read(run, change):
    run_folder.write_measure(run, FREQUENCY, {"n": 5})
    change(run)
    for words in ("frequency.json: measured from other outputs", "frequency.json: cannot be read"):
        content, note = run_folder.read_measure(run, FREQUENCY)
        assert content is None and words in note and "repeat its frequency.py command" in note
        (run / FREQUENCY).write_bytes(b"{")


def test_truncation_to_the_checkpoints_epoch(tmp_path):
    run = tmp_path
    run_folder.write_config(run, CONFIG)
    write_epochs(run, EPOCHS[:2], SAMPLE[:2])
    before = folder_bytes(run)
    write_epochs(run, EPOCHS[2:], SAMPLE[2:], start=3)
    run_folder.write_measure(run, FREQUENCY, {})
    run_folder.truncate_run(run, 2)
    assert folder_bytes(run) == before
    run_folder.write_measure(run, FREQUENCY, {})
    run_folder.truncate_run(run, 2)  # whose measures stay
    assert run_folder.read_measure(run, FREQUENCY)[0] and run_folder.is_complete(run, 2)
    with pytest.raises(UserError, match=r"history\.jsonl: 2 of the 3 epochs"):
        run_folder.truncate_run(run, 3)
    # What is beyond the checkpoint need not be whole: it is cut away.
    write_epochs(run, EPOCHS[2:], SAMPLE[2:], start=3)
    os.truncate(run / TEST_LOGITS, (run / TEST_LOGITS).stat().st_size - 1)
    run_folder.truncate_run(run, 2)
    assert (run / TEST_LOGITS).read_bytes() == before[TEST_LOGITS]


# Folders and the lock


def test_runs_are_found_by_their_config_behind_links_too(tmp_path):
    for name in ("b/two", "a/one", "a/none", "elsewhere/three"):
        (tmp_path / name).mkdir(parents=True)
        if "none" not in name:
            (tmp_path / name / "config.json").write_text("{}")
    find, a, b = run_folder.find_runs, tmp_path / "a", tmp_path / "b"
    assert find([a, b]) == [a / "one", b / "two"]
    assert find([a / "one", a]) == [a / "one"]
    (a / "linked").symlink_to(tmp_path / "elsewhere/three")
    (b / "folder").symlink_to(tmp_path / "elsewhere")
    (b / "circle").symlink_to(b)
    assert find([a]) == [a / "linked", a / "one"]
    assert find([b]) == [b / "folder/three", b / "two"]
    assert len(find([tmp_path])) == 3  # each once
    for path in ("a/none", "nowhere"):
        with pytest.raises(UserError, match=r"no run there; make one with train\.py"):
            find([tmp_path / path])


def test_a_folder_that_cannot_be_read_is_no_folder_without_runs(tmp_path, monkeypatch):
    (tmp_path / "a/one").mkdir(parents=True)
    scan = os.scandir

    def refuse(path):  # as the system does for users other than root
        if os.path.basename(path) == "one":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        run_folder.find_runs([tmp_path])


HOLD = """
import pathlib
from common.run_folder import locked
with locked(pathlib.Path()):
    print("held", flush=True)
    input()
"""


def test_one_process_holds_a_lock(tmp_path):
    with start_python("-c", HOLD, cwd=tmp_path, stdin=subprocess.PIPE) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {other.pid} on"), run_folder.locked(tmp_path):
            pass
        other.kill()
    # A dead process's lock stops nobody, though its file is still there.
    assert (tmp_path / "lock").exists()
    for _ in range(2):
        with run_folder.locked(tmp_path):
            assert str(os.getpid()) in (tmp_path / "lock").read_text()


def test_what_a_killed_process_was_writing_is_removed_under_the_lock(tmp_path):
    others = ["frequency.json.42.tmp", "notes.tmp"]
    for name in ("history.jsonl.42.tmp", "checkpoint.pt.42.tmp", "config.json.42.tmp", *others):
        (tmp_path / name).write_bytes(b"half")
    with run_folder.locked(tmp_path):
        assert sorted(path.name for path in tmp_path.glob("*.tmp")) == others


def test_a_file_system_without_locks(tmp_path, monkeypatch, capsys):
    errors = [OSError(errno.ENOLCK, "no locks"), NotImplementedError(), PermissionError("no")]
    monkeypatch.setattr(filelock.FileLock, "acquire", Mock(side_effect=errors))
    for _ in range(2):
        with run_folder.locked(tmp_path):
            assert "no locks; train it from one process only" in capsys.readouterr().out
    with pytest.raises(PermissionError), run_folder.locked(tmp_path):
        pass


def test_nothing_on_disk_is_a_pickle(trained_study):
    for run in run_folder.find_runs([trained_study / "runs"]):
        names = {path.name for path in run.iterdir()}
        assert names == {*run_folder.REPLACED, "checkpoint.pt", "lock"} - {*run_folder.MEASURES}
        json.loads((run / "config.json").read_text())
        for name in (*run_folder.LOGITS, run_folder.SAMPLE_INDICES):
            np.load(run / name, allow_pickle=False)
        torch.load(run / "checkpoint.pt", weights_only=True)
