"""Write a file many times, always with the same content: one character, repeated.

    python write_repeatedly.py <file> <character>

Prints `started` before the first time.
"""

import sys
from pathlib import Path

from common.files import write_text

print("started", flush=True)
for _ in range(50):
    write_text(Path(sys.argv[1]), 100_000 * sys.argv[2])
