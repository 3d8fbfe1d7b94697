"""Import modules: python import_modules.py train analysis.measures ..."""

import importlib
import sys

for name in sys.argv[1:]:
    importlib.import_module(name)
