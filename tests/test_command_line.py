"""common/command_line.py: typed flags, one line for the user, streams, signals, exit statuses."""

import argparse
import errno
import os
import signal
import subprocess
import sys

import pytest
from helpers import PROGRAMS, ROOT, environment, run_python

from common.command_line import (
    Parser,
    UserError,
    decay,
    end_quietly,
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

# Types of flags: the type, what it takes, what it refuses.
TYPES = [
    (integer(1, 9), {"1": 1, " 9 ": 9}, ["0", "10", "-1", "1.5", "", "x", "9" * 5000]),
    (integer(0), {"0": 0, "1000000000": 10**9}, ["1000000001", "-0.0", "nan"]),
    (fraction, {"0": 0, "1": 1, "0.4": 0.4, "1e-3": 0.001}, ["-0.1", "1.1", "nan", "inf", "x"]),
    (positive, {"1e-9": 1e-9, "3": 3}, ["0", "-1", "nan", "inf", ""]),
    (non_negative, {"0": 0, "5": 5}, ["-1e-9", "inf"]),
    (decay, {"0": 0, "0.999": 0.999}, ["1", "-0.1"]),
    (number(2, 3, above=True, below=True), {"2.5": 2.5}, ["2", "3", "-inf"]),
]


@pytest.mark.parametrize(("kind", "taken", "refused"), TYPES)
def test_types_of_flags(kind, taken, refused):
    assert {text: kind(text) for text in taken} == taken
    for text in refused:
        with pytest.raises(argparse.ArgumentTypeError):
            kind(text)


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (integer(1), "0", "0: use 1 or more"),
        (number(0, 1, above=True), "2", "2: use a number above 0 and at most 1"),
        (decay, "1", "1: use a number at least 0 and below 1"),
        (positive, "x", "'x' is not a number"),
    ],
)
def test_what_a_type_says(kind, text, words):
    with pytest.raises(argparse.ArgumentTypeError, match=words):
        kind(text)


def test_a_parser_takes_no_abbreviation_and_says_one_line(capsys):
    parser = Parser("What it does.\n\n    as typed")
    parser.add_argument("--rate", type=fraction, default=0.4, help="noise rate")
    for words in (["--rat", "0.1"], ["--rate", "2"], ["--rate"], ["x\x1b[2J"]):
        with pytest.raises(SystemExit) as stop:
            parser.parse_args(words)
        out, err = capsys.readouterr()
        assert stop.value.code == 2 and out == "" and err.count("\n") == 1
        assert "error: " in err and "\x1b" not in err
    text = parser.format_help()
    assert "\n    as typed\n" in text and "noise rate (default: 0.4)" in text


def test_user_errors_are_one_short_line():
    assert str(UserError("a\n b\t c")) == "a b c"
    assert str(UserError("x\x1b[31m\x07é\u202e")) == r"x\x1b[31m\x07é\u202e"
    line = str(UserError("--flag " + 1000 * "x" + "; use --other"))
    assert len(line) <= 300 and line.startswith("--flag x") and line.endswith("x; use --other")
    assert " ... " in line and len(str(UserError("\x1b" * 300))) <= 300
    assert printable("plain ± ü") == "plain ± ü" and printable("\n") == r"\n"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "make room there"),
        (errno.EACCES, "check its permissions"),
        (errno.EROFS, "a folder that can be written"),
        (errno.ENOTDIR, "a file stands where a folder is needed"),
        (errno.EISDIR, "a folder stands where a file is needed"),
    ],
)
def test_errors_of_the_system_have_a_fitting_remedy(number, words):
    line = str(explained(OSError(number, os.strerror(number), "out/a.json")))
    assert line.startswith(f"out/a.json: {os.strerror(number)}; ") and words in line
    assert "make room" not in line or number == errno.ENOSPC
    assert str(explained(OSError("strange"))) == "strange"


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


@pytest.mark.parametrize(
    ("work", "status", "line"), ENDS, ids=[end[2] or str(end[1]) for end in ENDS]
)
def test_how_a_script_ends(capsys, work, status, line):
    assert run_script("s.py", work, "use --resume") == status
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(line) and err.count("\n") == bool(line)
    assert "Traceback" not in err


def test_a_fault_of_the_program_has_a_traceback_and_says_what_to_do(capsys):
    assert run_script("s.py", lambda: 1 // 0) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err and err.endswith("please report it with the lines above\n")
    with pytest.raises(RuntimeError, match="of another kind"), explained_memory("x"):
        raise RuntimeError("of another kind")


# In processes of their own: a small script, its streams, its signals.

SCRIPT = """
import os, signal, sys
from common.command_line import UserError, run_script
def work():
    print("done", chr(0xb1) + chr(0xfc) + chr(0xdcff))
    {}
sys.exit(run_script("s.py", work))
"""


def shell(text, body="pass", **variables):
    """Run the small script by a shell command, where it is $S."""
    env = environment(S=f"{sys.executable} -c '{SCRIPT.format(body)}'", **variables)
    return subprocess.run(["sh", "-c", f'eval "$S" {text}'], env=env, capture_output=True)


@pytest.mark.parametrize(
    ("text", "variables", "status", "out", "err"),
    [
        ("", {}, 0, b"done \xc2\xb1\xc3\xbc\\udcff\n", b""),
        ("", {"PYTHONIOENCODING": "ascii"}, 0, b"done \\xb1\\xfc\\udcff\n", b""),
        ("", {"LC_ALL": "C", "PYTHONUTF8": "0"}, 0, None, b""),
        (">&-", {}, 0, b"", b""),
        ("2>&-", {}, 0, None, b""),
        (">&- 2>&-", {}, 0, b"", b""),
        (">/dev/full", {}, 2, b"", b"s.py: No space left on device; make room"),
        ("", {"WORLD_SIZE": ""}, 0, None, b""),
        ("", {"WORLD_SIZE": "2", "RANK": "1"}, 0, None, b""),
    ],
)
def test_streams_and_variables(text, variables, status, out, err):
    done = shell(text, **variables)
    assert done.returncode == status and done.stderr.startswith(err), done.stderr
    assert done.stderr.count(b"\n") == bool(err)
    assert out is None or done.stdout == out


def test_a_reader_that_closes_the_pipe_ends_the_script_quietly():
    done = shell("| head -c 3", body='print("x" * 10_000_000)')
    assert (done.stdout, done.stderr) == (b"don", b"")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_a_script_with_one_line(name):
    done = shell("", body=f"os.kill(os.getpid(), signal.{name})")
    assert done.returncode == 130 and done.stderr == b"s.py: interrupted\n"


def test_a_script_that_a_shell_started_with_an_ampersand_ignores_ctrl_c():
    done = shell("& wait $!", body="os.kill(os.getpid(), signal.SIGINT)")
    assert done.returncode == 0 and done.stderr == b""


def test_end_quietly_is_for_scripts_that_take_ctrl_c():
    before = signal.getsignal(signal.SIGINT)
    try:
        for handler, expected in (
            (signal.default_int_handler, signal.SIG_DFL),
            (signal.SIG_IGN, signal.SIG_IGN),
        ):
            signal.signal(signal.SIGINT, handler)
            end_quietly()
            assert signal.getsignal(signal.SIGINT) == expected
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("module", "how", "status", "words"),
    [
        ("losses", "raise", -signal.SIGINT, ""),
        ("torch", "raise", 130, "train.py: interrupted; go on"),
        ("torch", "break", 130, "train.py: interrupted; go on"),
    ],
)
def test_ctrl_c_while_a_script_imports(tmp_path, module, how, status, words):
    program = PROGRAMS / "interrupt_import.py"
    done = run_python(program, module, how, "train.py", "--dis=1", cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith(words) and done.stderr.count("\n") == bool(words)


def test_one_process_of_a_machine_refuses_flags(script, monkeypatch):
    assert script("train", "--bogus")[2].endswith("error: unrecognized arguments: --bogus\n")
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID")
    for name in names:
        monkeypatch.setenv(name, "1")
    assert script("train", "--bogus") == (2, "", "")
    assert (ROOT / "train.py").exists()
