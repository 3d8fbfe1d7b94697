"""Parse a script's flags with the script's own parser, in a separate process.

A wrong flag is then reported before anything starts, and a run on disk can be compared with the
requested flags, defaults included.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError

# The settings of a run as in config.json; those of a data set by field.
ASK = """
import importlib, json, sys
folder, name = sys.argv[1:]
sys.path.insert(0, folder)
sys.argv[:] = [name + ".py"]
parse_args = importlib.import_module(name).parse_args
settings = [parse_args(flags).settings for flags in json.load(sys.stdin)]
print(json.dumps([s.flags() if hasattr(s, "flags") else vars(s) for s in settings]))
"""


def parse_flags(script: Path, commands: Sequence[Sequence[str]]) -> list[dict]:
    """The settings that the script's parse_args makes of each list of flags, plain values by name.

    Raises UserError with the script's own line if it refuses one of them.
    """
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(script.parent), script.stem],
        input=json.dumps([list(flags) for flags in commands]),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise UserError((done.stderr.strip().splitlines() or [f"{script}: no answer"])[-1])
    return json.loads(done.stdout.splitlines()[-1])
