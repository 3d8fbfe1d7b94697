"""Import modules where others cannot be imported: import_modules.py torch train analysis.history.

The first word has the names that are forbidden, separated by commas.
"""

import importlib
import signal
import sys
import threading

forbidden, *names = sys.argv[1:]


class Forbid:
    """Refuses to find the modules; unlike None in sys.modules, no library can stumble over it."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in forbidden.split(","):
            raise ImportError(f"{name} is forbidden")


sys.meta_path.insert(0, Forbid)
for name in names:
    importlib.import_module(name)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert threading.active_count() == 1
