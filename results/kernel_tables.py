"""The tables of kernels: equivalent epochs, and where the parts of the labels have their energy."""

import numpy as np
from cells import CROSS_ENTROPY, DISTILLED, MAIN, NOISES, PREVIOUS, ROOT, markdown, number

from analysis.curves import group_by_loss
from analysis.equivalent_quantities import spectrum_entry
from analysis.history_file import read_history_file
from analysis.run_comparison import compare_entries
from analysis.spectrum_file import kernel_title
from analysis.statistics import interval

TANGENT = ROOT / "results" / "tangent"
LEADING = 100  # eigenvectors whose energy the table shows, up to the nearest edge of a half octave


def kernels_table() -> str:
    """The equivalent epoch of the last epoch by kernel, and its distance."""
    lines = []
    for noise, title in NOISES.items():
        groups = group_by_loss(read_history_file(MAIN / noise / "history.json"))
        for loss in (DISTILLED, PREVIOUS):
            paths: dict[str, list] = {}
            for draw, run in groups[loss].items():
                others = groups[CROSS_ENTROPY][draw]["spectrum"]["kernels"]
                for own, other in zip(run["spectrum"]["kernels"], others, strict=True):
                    path, _ = compare_entries(own, other, "softmax")
                    paths.setdefault(kernel_title(own), []).append(path)
                pair = spectrum_entry(run), spectrum_entry(groups[CROSS_ENTROPY][draw])
                path, _ = compare_entries(*pair, "one_hot")
                paths.setdefault(f"{kernel_title(pair[0])}, one-hot", []).append(path)
            cells = [
                f"{number(interval([path.nearest[-1] + 1 for path in kernel_paths]))}, distance "
                f"{number(interval([path.distance[-1] for path in kernel_paths]), 3)}"
                for kernel_paths in paths.values()
            ]
            lines.append([title, loss, *cells])
    return markdown(["noise", "loss", *paths], lines)


def trained_last(item: tuple) -> bool:
    """The sorting key of tangent_table's rows."""
    return item[0][0] == "ntk-final"


def tangent_table() -> str:
    """Energy of the parts along the leading eigenvectors: pixels, and networks before and after."""
    lines, count = [], 0
    for noise, title in NOISES.items():
        energies: dict[tuple[str, str], list[list[float]]] = {}
        for run in read_history_file(TANGENT / noise / "history.json")["runs"]:
            for entry in run["spectrum"]["kernels"]:
                ends = np.array(entry["bands"][1:]) - 1
                bands = int(np.abs(np.log(ends / LEADING)).argmin()) + 1
                count = ends[bands - 1]
                parts = (entry["energies"][part] for part in ("clean", "individual"))
                shares = [sum(values[:bands]) for values in (*parts, entry["shuffled"])]
                trained = run["loss"] if entry["kernel"] == "ntk-final" else "either loss"
                energies.setdefault((kernel_title(entry), trained), []).append(shares)
        lines += [
            [title, kernel, loss, *(f"{share:.3f}" for share in np.mean(shares, axis=0))]
            for (kernel, loss), shares in sorted(energies.items(), key=trained_last)
        ]
    head = ["noise", "kernel", "trained with", f"energy along the first {count}: clean labels"]
    return markdown([*head, "individual noise", "shuffled labels"], lines)
