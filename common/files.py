"""Atomic file writes, and JSON objects."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from common.errors import UserError


@contextmanager
def atomic_write(
    path: Path, before_replace: Callable[[], None] | None = None
) -> Iterator[BinaryIO]:
    """A binary file to write that becomes `path` when the block ends without an error.

    The content goes to a temporary file beside `path`, named after this process, so that two
    processes that write one file do not mix; a reader sees the old file or the new one.
    `before_replace` is called when the new content is on disk and `path` is still the old file.
    Raises OSError if the file cannot be written; the old one then stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if before_replace:
            before_replace()
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in UTF-8, whole or not at all. Raises OSError."""
    with atomic_write(path) as file:
        file.write(text.encode())


def write_json(path: Path, content: dict) -> None:
    """Write a JSON object whole or not at all.

    Raises ValueError if a number is not finite, OSError if the file cannot be written.
    """
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: Path, remedy: str) -> dict:
    """Read a JSON object. Raises UserError with the remedy if there is none."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {remedy}") from None
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a JSON object; {remedy}")
    return content
