"""Label files that are wrong in more than fifty ways are refused in one short line."""

import io
import json

import numpy as np
import pytest
import torch

from common.errors import MAX_CHARACTERS

LONG = "x" * 5000
COUNT = 60  # images of the data set


def as_json(content) -> bytes:
    return json.dumps(content).encode()


def as_npy(array, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def as_pt(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def huge_npy() -> bytes:
    """A header of 10^12 labels, and none."""
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000,), }"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


LABELS = [k % 10 for k in range(COUNT)]
WRONG_FILES = {
    "empty.json": b"",
    "empty.csv": b"",
    "empty.npy": b"",
    "empty.pt": b"",
    "empty": b"",
    "blank.json": b" \n",
    "bytes.json": bytes(range(256)) * 20,
    "bytes.csv": bytes(range(256)) * 20,
    "bytes.npy": bytes(range(256)) * 20,
    "bytes.pt": bytes(range(256)) * 20,
    "bytes.pkl": bytes(range(256)) * 20,
    "pickle.pkl": b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00]\x94(K\x00K\x01e.",
    "pickled.npy": as_npy(np.array([{"label": 1}], object), allow_pickle=True),
    "set.pt": as_pt({1, 2, 3}),
    "module.pt": as_pt(torch.nn.Linear(2, 2)),
    "cut.json": as_json(LABELS)[:-9],
    "cut.npy": as_npy(np.array(LABELS))[:-9],
    "cut.pt": as_pt(torch.tensor(LABELS))[:-200],
    "header.npy": huge_npy(),
    "100MB.json": lambda: b"[" + b"1," * 50_000_000 + b"1]",
    "100MB.npy": lambda: as_npy(np.zeros(12_500_000, np.int64)),
    "long.json": as_json([1] * 100_000),
    "long.csv": b"1\n" * 100_000,
    "short.json": as_json(LABELS[:45]),
    "none.json": b"[]",
    "object.json": b"{}",
    "number.json": b"7",
    "text.json": as_json(LONG),
    "null.json": b"null",
    "deep.json": b"[" * 400_000 + b"]" * 400_000,
    "deep object.json": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "nested.json": as_json([LABELS]),
    "ragged.json": as_json([[1], [1, 2]] * 30),
    "floats.json": as_json([float(k) for k in LABELS]),
    "nan.json": b"[" + b"NaN," * (COUNT - 1) + b"NaN]",
    "infinite.json": b"[" + b"1e999," * (COUNT - 1) + b"1]",
    "strings.json": as_json([str(k) for k in LABELS]),
    "long strings.json": as_json([LONG] * COUNT),
    "booleans.json": as_json([True] * COUNT),
    "nulls.json": as_json([None] * COUNT),
    "negative.json": as_json([-1, *LABELS[1:]]),
    "to 99.json": as_json([99, *LABELS[1:]]),
    "large.json": as_json([10**25, *LABELS[1:]]),
    "digits.json": b"[" + b"9" * 10_000 + b"]",
    "names.json": as_json({LONG + str(k): LABELS for k in range(30)}),
    "files.json": as_json({f"/{LONG}/{k}.png": k % 10 for k in range(COUNT)}),
    "object of objects.json": as_json({"noisy": {"a": LABELS}}),
    "floats.pt": as_pt(torch.rand(COUNT)),
    "float names.pt": as_pt({1.5: LABELS, 2: LABELS, None: LABELS}),
    "matrix.npy": as_npy(np.eye(COUNT, dtype=int)),
    "records.npy": as_npy(np.zeros(COUNT, [(f"field{k}" * 20, int) for k in range(50)])),
    "dates.npy": as_npy(np.zeros(COUNT, "M8[s]")),
    "cells.csv": (LONG * 100 + "\n1\n").encode(),
    "quote.csv": b'"1\n2\n' + b"3\n" * COUNT,
    "zeros.csv": b"\0" * 5000,
    "columns.csv": (",".join(f"column{k}" for k in range(2000)) + "\n1\n").encode(),
}


def marked(name):
    """The name of a wrong file, with the mark `slow` if the file is large."""
    return pytest.param(name, marks=pytest.mark.slow) if name.startswith("100MB") else name


@pytest.mark.parametrize("name", [marked(name) for name in WRONG_FILES])
def test_wrong_files_have_short_messages(refused, workplace, name):
    content = WRONG_FILES[name]
    (workplace / name).write_bytes(content() if callable(content) else content)
    flags = ["--dataset", "shapes", "--train-size", COUNT, "--test-size", 10, "--noise", name]
    message = refused("generate", *flags).strip().removeprefix("generate.py: ")
    assert message.startswith(f"--noise {name}: ") and len(message) <= MAX_CHARACTERS
    assert [path.name for path in (workplace / "data").iterdir()] == ["small.npz"]


def test_there_are_fifty_wrong_files():
    assert len(WRONG_FILES) >= 50
