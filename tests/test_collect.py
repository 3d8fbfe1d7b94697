"""collect_history.py: what it reads, where it writes, what it never overwrites, what it prints."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import SMALL_RUN
from made_runs import DISTILLED, PREVIOUS, make_run, study, write_run

from analysis import tables
from analysis.history import by_noise, read_history, write_history
from common.files import without_nan

pytestmark = pytest.mark.usefixtures("place")


def files() -> dict[str, bytes]:
    """Every file below the working folder."""
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def test_the_default_place_is_the_folder_of_the_runs(script):
    runs = study(noises=["pair", "human"], seeds=[6])
    folders = [write_run(run) for run in runs]
    for words, out in (
        ([folders[0]], folders[0].parent),
        ([folders[0].parent], folders[0].parent),
        (["--runs", "runs"], Path("runs")),
        ([], Path("runs")),
        ([folders[0], folders[-1]], Path("runs")),
    ):
        status, text, _ = script("collect_history", *words)
        assert status == 0 and f"written: {out}/history.json, {out}/results.json" in text
        assert (out / "history.json").exists() and (out / "results.json").exists()


def test_what_is_written_and_printed(script):
    runs = study(seeds=[6, 7])
    for run in runs:
        write_run(run)
    status, text, errors = script("collect_history")
    assert status == 0 and errors == "" and text.count("\n") == 15
    found = read_history(Path("runs/history.json"))
    assert sorted(run.name for run in found) == sorted(run.name for run in runs)
    content = tables.results(by_noise(found))
    results = json.loads(Path("runs/results.json").read_text())
    assert results == json.loads(json.dumps(without_nan(content)))
    assert text.splitlines()[:-1] == tables.short_text(content)
    status, everything, _ = script("collect_history", "--all")
    assert status == 0 and everything.splitlines()[:-1] == tables.long_text(content)
    assert "(previous: Holm)" in text and "plot.py runs/history.json" in text


def test_a_study_can_be_collected_in_steps(script):
    runs = study(noises=["pair"], seeds=[6, 7])
    folders = [write_run(run) for run in runs]
    assert script("collect_history", "runs", "--out", "whole/history.json")[0] == 0
    assert script("collect_history", *folders[:3], "--out", "part/history.json")[0] == 0
    status, text, _ = script("collect_history", "part/history.json", "runs")
    assert status == 0 and "written: part/history.json" in text
    whole, part = (read_history(Path(name) / "history.json") for name in ("whole", "part"))
    assert sorted(run.name for run in whole) == sorted(run.name for run in part)
    # Extending it again changes nothing, and a file alone is not written anew.
    before = files()
    assert script("collect_history", "part/history.json", "runs")[0] == 0
    status, text, _ = script("collect_history", "part/history.json")
    assert status == 0 and "written: part/results.json;" in text and files() == before


def test_unfinished_and_broken_runs_are_named_and_left_out(script, refused):
    write_run(make_run())
    unfinished = make_run(DISTILLED, epochs=40)
    write_run(unfinished)
    broken = write_run(make_run(PREVIOUS))
    (broken / "history.jsonl").write_text("")
    status, text, errors = script("collect_history")
    assert status == 0 and "self-distillation" not in text
    assert f"{unfinished.name}: 3 of 40 epochs, left out; repeat" in errors and "--resume" in errors
    assert f"left out: {broken}/history.jsonl" in errors
    assert len(read_history(next(Path("runs").glob("*/history.json")))) == 1
    # All of them unfinished: one line, and nothing is written.
    before = files()
    words = [Path("runs") / unfinished.name, "--out", "new/history.json"]
    assert "3 of 40 epochs" in refused("collect_history", *words)
    assert files() == before


def test_missing_numbers_are_null_and_said(script):
    write_run(make_run(gap=None, validation=None, noise="none", frequency=False))
    status, text, errors = script("collect_history", "--all")
    assert status == 0 and "nan" not in text.lower()
    assert "no wrong label" in errors and "no early stopping" in errors
    results = next(Path("runs").glob("*/results.json")).read_text()
    content = json.loads(results, parse_constant=pytest.fail)
    series = content["noises"]["none, 40% wrong"]["series"]["cross-entropy"]
    assert series["means"]["last"]["gap"] == {"n": 0, "mean": None, "low": None, "high": None}
    assert series["stopped_at"]["early"] == [None]


@pytest.mark.filterwarnings("error")  # numpy's, of a mean of nothing
def test_a_sample_without_a_wrong_label_gives_no_warning(workplace, script):
    flags = [*SMALL_RUN, "--epochs=1", "--sample-size=1"]
    assert script("train", *flags)[0] == 0 and script("collect_history")[0] == 0


def test_digits_round_the_file_and_runs_that_it_loses_are_named(script):
    write_run(make_run(accuracy=(100 / 3, 200 / 3), validation=(1, 2), gap=(3, 4)))
    other = write_run(make_run(DISTILLED))
    assert script("collect_history", "--digits", "5", "--out", "h/history.json")[0] == 0
    run, _ = read_history(Path("h/history.json"))
    np.testing.assert_array_equal(run.history["test_accuracy"], [33.333, 66.667])
    status, _, errors = script("collect_history", other, "--out", "h/history.json")
    assert status == 0 and f"{run.name}: in h/history.json before, and no longer" in errors


def prepare_refusals() -> None:
    """Runs, and files that are not this script's."""
    write_run(make_run())
    write_run(make_run(DISTILLED), Path("other/place"))
    Path("data").mkdir()
    Path("data/b.npz").write_bytes(b"PK")
    for name in ("mine", "theirs"):
        Path(name).mkdir()
    for name in ("plain.json", "mine/history.json"):
        Path(name).write_text('{"a": 1}')
    Path("theirs/results.json").write_text('{"a": 1}')
    Path("notes.md").write_text("no table here\n")
    Path("binary.md").write_bytes(b"\xff\xfe\x00")


REFUSED = [
    (["nowhere"], "nowhere: no run there"),
    (["nowhere.json"], "nowhere.json: no"),
    (["plain.json"], "plain.json: not a history.json"),
    (["data/b.npz"], "data/b.npz: "),
    (["runs", "--out", ""], "not to .; name one with --out"),
    (["runs", "--out", "b.json"], "history.json, not to b.json; name one with --out"),
    (["runs", "--out", "mine/history.json"], "mine/history.json exists with other content"),
    (["runs", "--out", "theirs/history.json"], "theirs/results.json was not made by"),
    (["runs", "other"], "several places; name the file to write with --out"),
    (["runs", "--readme", "notes.md"], "--readme notes.md: no table of"),
    (["runs", "--readme", "binary.md"], "--readme binary.md"),
    (["runs", "--readme", "missing.md"], "missing.md: No such file"),
    (["runs", "--digits", "3"], "--digits"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_is_refused_leaves_everything_as_it_is(words, said, refused):
    prepare_refusals()
    before = files()
    assert said in refused("collect_history", *words)
    assert files() == before


def test_the_tables_of_a_readme(script):
    runs = study(seeds=[6, 7])
    write_history(Path("main/history.json"), runs)
    Path("README.md").write_text("a\n<!-- table: answer -->\n<!-- end -->\nb\n")
    Path("more.md").write_text(
        "<!-- table: quantities main -->\n<!-- end -->\n<!-- table: x other -->\n<!-- end -->\n"
    )
    before = Path("main/history.json").read_bytes()
    words = ["main/history.json", "--readme", "README.md", "more.md"]
    status, text, _ = script("collect_history", *words)
    assert status == 0 and "written: main/results.json, README.md, more.md" in text
    assert Path("main/history.json").read_bytes() == before
    content = tables.results(by_noise(runs))
    answer, more = tables.markdown(content, "answer"), Path("more.md").read_text()
    written = f"a\n<!-- table: answer -->\n{answer}\n<!-- end -->\nb\n"
    assert Path("README.md").read_text() == written
    assert tables.markdown(content, "quantities") in more
    assert more.endswith("<!-- table: x other -->\n<!-- end -->\n")
