"""Run a script where some modules cannot be imported.

python forbid_imports.py torch,scipy train.py --help
"""

import runpy
import sys
from pathlib import Path

from forbidding import forbid

names, script, *flags = sys.argv[1:]
forbid(names)
sys.argv = [script, *flags]
root = Path(__file__).parent.parent.parent
sys.path.insert(0, str(root))
runpy.run_path(str(root / script), run_name="__main__")
