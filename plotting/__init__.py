"""The figures of a study; plotting/figures.py lists them."""
