"""common/command_line.py, common/files.py: flags, one line for the user, streams, whole files."""

import argparse
import errno
import signal
import subprocess
import sys
from unittest.mock import Mock

import pytest
from helpers import PROGRAMS, environment, run_python, start_python

from common.command_line import (
    Parser,
    UserError,
    decay,
    fraction,
    integer,
    non_negative,
    number,
    positive,
    printable,
    run_script,
)
from common.files import atomic_write, making, read_json, write_json, write_text

# Types of flags: the type, what it takes, what it refuses.
TYPES = [
    (integer(1, 9), {"1": 1, " 9 ": 9}, ["0", "10", "1.5", "", "x", "9" * 5000]),
    (integer(0), {"0": 0, "1000000000": 10**9}, ["1000000001", "-1"]),
    (fraction, {"0": 0, "1": 1, "1e-3": 0.001}, ["-0.1", "1.1", "nan", "inf", "x"]),
    (positive, {"1e-9": 1e-9, "3": 3}, ["0", "-1", "nan", "inf", ""]),
    (non_negative, {"0": 0, "5": 5}, ["-1e-9", "inf"]),
    (decay, {"0": 0, "0.999": 0.999}, ["1", "-0.1"]),
    (number(2, 3, above=True, below=True), {"2.5": 2.5}, ["2", "3"]),
]


@pytest.mark.parametrize(("kind", "taken", "refused"), TYPES)
def test_types_of_flags(kind, taken, refused):
    assert {text: kind(text) for text in taken} == taken
    for text in refused:
        with pytest.raises(argparse.ArgumentTypeError):
            kind(text)


def test_a_parser_takes_no_abbreviation_and_says_one_line(capsys):
    parser = Parser("What it does.\n\n    as typed")
    parser.add_argument("--rate", type=fraction, default=0.4, help="noise rate")
    text = parser.format_help()
    assert "\n    as typed\n" in text and "noise rate (default: 0.4)" in text
    for words in (["--rat", "0.1"], ["--rate", "2"], ["x\x1b[2J"]):
        with pytest.raises(SystemExit) as stop:
            parser.parse_args(words)
        out, err = capsys.readouterr()
        assert stop.value.code == 2 and out == "" and err.count("\n") == 1
        assert "error: " in err and "\x1b" not in err


def test_user_errors_are_one_short_line():
    assert str(UserError("a\n b\t c")) == "a b c"
    assert str(UserError("x\x1b[31m\x07é\u202e")) == r"x\x1b[31m\x07é\u202e"
    line = str(UserError("--flag " + 1000 * "x" + "; use --other"))
    assert len(line) <= 300 and line.startswith("--flag x") and line.endswith("x; use --other")
    assert printable("plain ± ü") == "plain ± ü" and printable("\n") == r"\n"


FULL = OSError(errno.ENOSPC, "No space left on device", "a.npy")
ENDS = [
    (UserError("--flag: wrong; use 1"), 2, "--flag: wrong; use 1"),
    (FULL, 2, "a.npy: No space left on device; make room there"),
    *(
        (OSError(number, "no", "a.npy"), 2, f"a.npy: no; {remedy}")  # a larger disk helps none
        for number, remedy in (
            (errno.EACCES, "check its permissions"),
            (errno.EROFS, "use a writable folder"),
            (errno.ENOTDIR, "a file stands where a folder is needed"),
            (errno.EISDIR, "a folder stands where a file is needed"),
        )
    ),
    (OSError("strange"), 2, "strange"),
    (KeyboardInterrupt(), 130, "interrupted; use --resume"),
    (MemoryError(), 2, "out of memory; use less data"),
    (RuntimeError("CUDA out of memory. Tried"), 2, "CUDA out of memory; use less"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: x"), 2, "out of memory; use less"),
]


@pytest.mark.parametrize(("error", "status", "line"), ENDS)
def test_how_a_script_ends(capsys, error, status, line):
    assert run_script("s.py", Mock(side_effect=error), "use --resume") == status
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"s.py: {line}") and err.count("\n") == 1


def test_a_fault_of_the_program_has_a_traceback_and_says_what_to_do(capsys):
    for error in (ZeroDivisionError("of a fault"), RuntimeError("of a fault")):
        assert run_script("s.py", Mock(side_effect=error)) == 1
        err = capsys.readouterr().err
        assert "of a fault" in err and err.endswith("please report it with the lines above\n")


# In processes of their own: a small script, its streams, its signals.

SCRIPT = """
import os, signal, sys
from common.command_line import UserError, run_script
def work():
    print("done", chr(0xb1) + chr(0xdcff))
    {}
sys.exit(run_script("s.py", work))
"""
DONE = b"done \xc2\xb1\\udcff\n"
INTERRUPT = "os.kill(os.getpid(), signal.SIGINT)"


@pytest.mark.parametrize(
    ("text", "body", "variables", "status", "out", "err"),
    [
        ("", "return 7", {}, 7, DONE, b""),
        ("", "pass", {"PYTHONIOENCODING": "ascii"}, 0, b"done \\xb1\\udcff\n", b""),
        (">&- 2>&-", "pass", {}, 0, b"", b""),
        (">/dev/full", "pass", {}, 2, b"", b"s.py: No space left on device; make room"),
        ("| head -c 3", 'print("x" * 10_000_000)', {}, 0, b"don", b""),
        ("", INTERRUPT, {}, 130, DONE, b"s.py: interrupted\n"),
        ("", INTERRUPT.replace("INT", "TERM"), {}, 130, DONE, b"s.py: interrupted\n"),
        ("& wait $!", INTERRUPT, {}, 0, DONE, b""),  # which a shell lets ignore Ctrl-C
    ],
)
def test_streams_variables_and_signals(text, body, variables, status, out, err):
    env = environment(S=f"{sys.executable} -c '{SCRIPT.format(body)}'", **variables)
    done = subprocess.run(["sh", "-c", f'eval "$S" {text}'], env=env, capture_output=True)
    assert done.returncode == status and done.stderr.startswith(err), done.stderr
    assert done.stderr.count(b"\n") == bool(err) and done.stdout == out


SAID = "train.py: interrupted; go on"
IMPORTS = [
    ("losses", "interrupt", -signal.SIGINT, ""),
    ("torch", "interrupt", 130, SAID),
    ("torch", "break", 130, SAID),
]


@pytest.mark.parametrize(("module", "how", "status", "words"), IMPORTS)
def test_ctrl_c_while_a_script_imports(tmp_path, module, how, status, words):
    code = "sys.exit(script('train.py', '--dis=1'))"
    done = run_python(PROGRAMS / "imports.py", how, module, code, cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith(words) and done.stderr.count("\n") == bool(words)


# Files


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new/a.json"
    write_text(path, "old ü")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("inf")})
    for name in (path / "b", tmp_path / "new"):  # below a file; a folder
        with pytest.raises(OSError, match=str(name)):
            write_text(name, "x")
    assert path.read_text("utf-8") == "old ü" and list(path.parent.iterdir()) == [path]
    link = tmp_path / "link.json"
    link.symlink_to(path)
    write_text(link, "new")
    assert link.is_symlink() and path.read_text("utf-8") == "new"


def test_json_objects_and_what_is_none(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(UserError, match="no such file; do this"):
        read_json(path, "do this")
    write_json(path, {"a": [1.5, None], "ü": "±"})
    assert read_json(path, "") == {"a": [1.5, None], "ü": "±"}
    for raw in (b"", b"{", b"[1]", b"null", b"\xff\xfe{}", b"[" * 100_000):
        path.write_bytes(raw)
        with pytest.raises(UserError, match=r"a\.json: .*; do this"):
            read_json(path, "do this")
    # The remedy for a damaged file might destroy one that may not be read.
    with pytest.raises(OSError, match="directory"):
        read_json(tmp_path, "destroy it")


# One of two processes makes a file; both then write another one again and again.
MAKE = """
import pathlib, sys
from common.files import making, write_text
made, written = pathlib.Path("made"), pathlib.Path("written")
with making(made):
    if not made.exists():
        write_text(made, "")
        print("made")
for _ in range(50):
    write_text(written, 100_000 * sys.argv[1])
"""


@pytest.mark.slow
def test_two_processes_make_a_file_once_and_do_not_mix_what_they_write(tmp_path):
    made, written = tmp_path / "made", tmp_path / "written"
    # While this process holds the lock, both have to wait, so that they begin together.
    with making(made):
        processes = [start_python("-c", MAKE, c, cwd=tmp_path) for c in "ab"]
        for process in processes:
            assert process.stdout.readline() == "waiting: another process is making made\n"
        assert not made.exists()
    while any(process.poll() is None for process in processes):
        if written.exists():
            assert written.read_text() in (100_000 * "a", 100_000 * "b")
    outs = [process.communicate(timeout=60) for process in processes]
    assert sorted(outs) == [("", ""), ("made\n", "")]
    with pytest.raises(UserError), making(made):
        raise UserError("wrong")
    assert set(tmp_path.iterdir()) == {made, written}
