"""Import modules where others cannot be imported: import_modules.py torch train analysis.history.

The first word has the names that are forbidden, separated by commas.
"""

import importlib
import signal
import sys
import threading

from forbidding import forbid

forbidden, *names = sys.argv[1:]
forbid(forbidden)
for name in names:
    importlib.import_module(name)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert threading.active_count() == 1
