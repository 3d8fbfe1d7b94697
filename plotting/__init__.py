"""Figures of the runs: functions of (runs by noise, series and seed; --delta). No torch here."""

import os

# Jupyter and Colab export a backend that this environment may not have; `import matplotlib` then
# fails. Python runs this file before any module of the package imports matplotlib.
os.environ["MPLBACKEND"] = "Agg"
