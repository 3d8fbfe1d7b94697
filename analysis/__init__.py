"""Measures of what the networks learned, and statistics over runs."""
