"""Run a script where some modules cannot be imported.

python forbid_imports.py torch,scipy train.py --help
"""

import runpy
import sys
from pathlib import Path

names, script, *flags = sys.argv[1:]


class Forbid:
    """Refuses to find the modules; unlike None in sys.modules, no library can stumble over it."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in names.split(","):
            raise ImportError(f"{name} is forbidden")


sys.meta_path.insert(0, Forbid)
sys.argv = [script, *flags]
root = Path(__file__).parent.parent.parent
sys.path.insert(0, str(root))
runpy.run_path(str(root / script), run_name="__main__")
