"""common/command_line.py, common/files.py: flags, one line for the user, streams, whole files."""

import argparse
import errno
import signal
import subprocess
import sys
import time

import filelock
import pytest
from helpers import PROGRAMS, environment, run_python, start_python

from common.command_line import (
    Parser,
    UserError,
    decay,
    explained,
    explained_memory,
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


def test_a_parser_takes_no_abbreviation_and_says_one_line(capsys, monkeypatch):
    parser = Parser("What it does.\n\n    as typed")
    parser.add_argument("--rate", type=fraction, default=0.4, help="noise rate")
    text = parser.format_help()
    assert "\n    as typed\n" in text and "noise rate (default: 0.4)" in text
    # Of the processes that torchrun starts on a machine, the first one says it.
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    for environ, lines in (({}, 1), ({"LOCAL_RANK": "0"}, 1), ({"LOCAL_RANK": "1"}, 0)):
        if environ:
            for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
                monkeypatch.setenv(name, "1")
            monkeypatch.setenv("LOCAL_RANK", environ["LOCAL_RANK"])
        for words in (["--rat", "0.1"], ["--rate", "2"], ["x\x1b[2J"]):
            with pytest.raises(SystemExit) as stop:
                parser.parse_args(words)
            out, err = capsys.readouterr()
            assert stop.value.code == 2 and out == "" and err.count("\n") == lines
            assert err.count("error: ") == lines and "\x1b" not in err


def test_user_errors_are_one_short_line():
    assert str(UserError("a\n b\t c")) == "a b c"
    assert str(UserError("x\x1b[31m\x07é\u202e")) == r"x\x1b[31m\x07é\u202e"
    line = str(UserError("--flag " + 1000 * "x" + "; use --other"))
    assert len(line) <= 300 and line.startswith("--flag x") and line.endswith("x; use --other")
    assert printable("plain ± ü") == "plain ± ü" and printable("\n") == r"\n"


def raising(error):
    def work():
        raise error

    return work


FULL = OSError(errno.ENOSPC, "No space left on device", "a.npy")
ENDS = [
    (lambda: None, 0, ""),
    (lambda: 7, 7, ""),
    (raising(UserError("--flag: wrong; use 1")), 2, "s.py: --flag: wrong; use 1"),
    (raising(FULL), 2, "s.py: a.npy: No space left on device; make room there"),
    (raising(KeyboardInterrupt()), 130, "s.py: interrupted; use --resume"),
    (raising(MemoryError()), 2, "s.py: out of memory; use less data"),
    (raising(RuntimeError("CUDA out of memory. Tried")), 2, "s.py: CUDA out of memory; use less"),
    (raising(RuntimeError("DefaultCPUAllocator: can't allocate memory: x")), 2, "s.py: out of mem"),
]


@pytest.mark.parametrize(("work", "status", "line"), ENDS)
def test_how_a_script_ends(capsys, work, status, line):
    assert run_script("s.py", work, "use --resume") == status
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(line) and err.count("\n") == bool(line)


def test_a_fault_of_the_program_has_a_traceback_and_says_what_to_do(capsys):
    assert run_script("s.py", lambda: 1 // 0) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err and err.endswith("please report it with the lines above\n")
    with pytest.raises(RuntimeError, match="of another kind"), explained_memory("x"):
        raise RuntimeError("of another kind")
    assert str(explained(OSError("strange"))) == "strange"


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
        ("", "pass", {}, 0, DONE, b""),
        ("", "pass", {"PYTHONIOENCODING": "ascii"}, 0, b"done \\xb1\\udcff\n", b""),
        (">&- 2>&-", "pass", {}, 0, b"", b""),
        (">/dev/full", "pass", {}, 2, b"", b"s.py: No space left on device; make room"),
        ("", "pass", {"WORLD_SIZE": "2", "RANK": "1"}, 0, DONE, b""),
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


@pytest.mark.parametrize(
    ("module", "how", "status", "words"),
    [
        ("losses", "interrupt", -signal.SIGINT, ""),
        ("torch", "interrupt", 130, "train.py: interrupted; go on"),
        ("torch", "break", 130, "train.py: interrupted; go on"),
    ],
)
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


MAKE = """
from common.files import making, write_text
with making(path):
    if not path.exists():
        write_text(path, "made")
        print("made")
"""
WRITE = """
from common.files import write_text
print("started", flush=True)
for _ in range(50):
    write_text(path, 100_000 * sys.argv[2])
"""


def start(code, path, *words):
    return start_python(
        "-c", "import sys, pathlib\npath = pathlib.Path(sys.argv[1])" + code, path, *words
    )


def test_two_processes_at_once_make_a_file_once(tmp_path):
    path = tmp_path / "a"
    # While this process holds the lock, both have to wait, so that they begin together.
    with making(path):
        processes = [start(MAKE, path) for _ in range(2)]
        for process in processes:
            assert process.stdout.readline() == f"waiting: another process is making {path}\n"
        assert not path.exists()
    outs = [process.communicate(timeout=60) for process in processes]
    assert sorted(outs) == [("", ""), ("made\n", "")]
    with pytest.raises(UserError), making(path):
        raise UserError("wrong")
    assert list(tmp_path.iterdir()) == [path]


def test_two_processes_that_write_one_file_do_not_mix(tmp_path):
    path = tmp_path / "a"
    writers = [start(WRITE, path, c) for c in "ab"]
    assert [writer.stdout.readline() for writer in writers] == ["started\n"] * 2
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            text = path.read_text()
            assert len(text) == 100_000 and len(set(text)) == 1
            seen |= set(text)
    assert [writer.communicate() for writer in writers] == [("", "")] * 2 and seen <= {"a", "b"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_without_locks_still_works(tmp_path, monkeypatch):
    def acquire(error):
        return lambda *_, **__: raising(error)()

    for error in (OSError(errno.ENOLCK, "no locks"), NotImplementedError()):
        monkeypatch.setattr(filelock.FileLock, "acquire", acquire(error))
        with making(tmp_path / "a"):
            write_json(tmp_path / "a", {})
    error = PermissionError(errno.EACCES, "Permission denied", "a.lock")
    monkeypatch.setattr(filelock.FileLock, "acquire", acquire(error))
    with pytest.raises(PermissionError), making(tmp_path / "a"):
        pass
