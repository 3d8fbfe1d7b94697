"""Run Python code in which the import of some modules is watched.

    python imports.py forbid torch,scipy "script('train.py', '--help')"

forbid: they cannot be imported. interrupt: Ctrl-C is pressed when one is looked for. break: the
same, and the library turns it into an error of its own, as some extensions do.
`script` runs a script as a user does.
"""

import os
import runpy
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
how, names, code = sys.argv[1:]


class Watch:
    # Over this, unlike over None in sys.modules, no library stumbles.
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in names.split(","):
            return
        if how == "forbid":
            raise ImportError(f"{name} is forbidden")
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        except KeyboardInterrupt:
            if how == "break":
                raise ImportError("cannot load module more than once per process") from None
            raise


def script(name, *flags):
    """Run a script of the project; returns its exit status."""
    sys.argv = [name, *flags]
    try:
        runpy.run_path(str(ROOT / name), run_name="__main__")
    except SystemExit as stop:
        return stop.code or 0


sys.meta_path.insert(0, Watch)
sys.path.insert(0, str(ROOT))
exec(code)
