"""How noises and losses appear in the names of files and folders."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path


def is_label_file(noise: str) -> bool:
    """Whether a noise is a file of labels and not a model: file names have a dot or a slash."""
    return "." in noise or "/" in noise


def has_rate(noise: str) -> bool:
    """Whether a noise has a rate: `none` and label files have none."""
    return noise != "none" and not is_label_file(noise)


def split_noise(noise: str) -> tuple[str, str]:
    """A noise model or label file, and the labels chosen in the file: FILE:LABELS, or ""."""
    if not is_label_file(noise):
        return noise, ""
    path, colon, labels = noise.rpartition(":")
    return (path, labels) if colon and "/" not in labels else (noise, "")


def noise_label(noise: str, rate: float | None, generate: Sequence[str] = ()) -> str:
    """The noise in names: pair40, none, or a label file's stem with the labels chosen in it."""
    if rate is not None:
        return f"{noise}{100 * rate:g}"
    path, labels = split_noise(noise)
    words = [part for word in generate for part in word.split("=", 1)]
    if "--labels" in words[:-1]:
        labels = words[words.index("--labels") + 1]
    return _file_name(Path(path).stem + (f"-{labels}" if labels else ""))


def loss_slug(loss: str) -> str:
    """A loss in names: `self-distillation --weight 0.2 --soft` -> self-distillation-weight0.2-soft.

    A flag's name is left out if its value is a word, which is clear by itself.
    """
    words = [part for word in shlex.split(loss) for part in word.split("=", 1)]
    parts, flag = [], ""
    for word in words:
        if re.match(r"--[a-z]", word):
            parts += [flag] if flag else []
            flag = word[2:]
        else:
            parts.append(word if re.match(r"[A-Za-z]", word) else flag + word)
            flag = ""
    return _file_name("-".join([*parts, *([flag] if flag else [])]))


def _file_name(text: str) -> str:
    """The text with a dash for every character that is awkward in a file name."""
    return re.sub(r"[^\w.+-]", "-", text)
