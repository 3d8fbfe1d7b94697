"""The tables in README.md and results/README.md are those of the committed summaries."""

import subprocess
import sys

import pytest
from helpers import ROOT


@pytest.mark.slow
def test_the_tables_of_the_texts_are_up_to_date():
    command = [sys.executable, str(ROOT / "results" / "tables.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
