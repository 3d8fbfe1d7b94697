"""Show the help of scripts where some modules cannot be imported.

python show_help.py torch,scipy train.py plot.py
"""

import runpy
import sys
from pathlib import Path

from forbidding import forbid

names, *scripts = sys.argv[1:]
root = Path(__file__).parent.parent.parent
forbid(names)
sys.path.insert(0, str(root))
for script in scripts:
    sys.argv = [script, "--help"]
    try:
        runpy.run_path(str(root / script), run_name="__main__")
    except SystemExit as stop:
        assert not stop.code, stop.code
