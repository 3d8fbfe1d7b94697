"""Many settings, one command: what study.py plans, checks, runs and shows."""
