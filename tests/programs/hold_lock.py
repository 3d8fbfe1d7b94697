"""Hold the lock of the run folder that is named, until killed; prints `held` once it does."""

import sys
import time
from pathlib import Path

from common.run_folder import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
