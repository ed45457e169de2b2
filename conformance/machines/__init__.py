"""Hypothesis state machines: thin rules over the lockstep, one module per subsystem."""
