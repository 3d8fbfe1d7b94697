"""Press Ctrl-C while a script imports a module.

    python interrupt_import.py MODULE raise train.py <flags>

With `break` in place of `raise`, the library turns the interruption into an error of its own, as
extensions that cannot be loaded twice do.
"""

import os
import runpy
import signal
import sys
import time
from pathlib import Path

module, how, script, *flags = sys.argv[1:]


class Interrupt:
    """Sends SIGINT when the module is looked for."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != module:
            return
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        except KeyboardInterrupt:
            if how == "break":
                raise ImportError("cannot load module more than once per process") from None
            raise


sys.meta_path.insert(0, Interrupt)
sys.argv = [script, *flags]
root = Path(__file__).parent.parent.parent
sys.path.insert(0, str(root))
runpy.run_path(str(root / script), run_name="__main__")
