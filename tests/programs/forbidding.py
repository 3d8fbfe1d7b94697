"""Make modules impossible to import, for programs that show that they are not needed."""

import sys


class Forbid:
    """Refuses to find the modules; unlike None in sys.modules, no library can stumble over it."""

    def __init__(self, names: str):
        self.names = names.split(",")

    def find_spec(self, name, path=None, target=None):
        if name in self.names:
            raise ImportError(f"{name} is forbidden")


def forbid(names: str) -> None:
    """Forbid the modules `names`, separated by commas."""
    sys.meta_path.insert(0, Forbid(names))
