"""Run a script where some modules cannot be imported.

python forbid_imports.py torch,scipy train.py --help
"""

import runpy
import sys
from pathlib import Path

names, script, *flags = sys.argv[1:]
sys.modules.update(dict.fromkeys(names.split(",")))  # the import of a module that is None fails
sys.argv = [script, *flags]
root = Path(__file__).parent.parent.parent
runpy.run_path(str(root / script), run_name="__main__")
