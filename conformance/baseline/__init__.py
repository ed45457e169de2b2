"""Baselines: the failures of a candidate that are known, each with the trace that shows it."""
