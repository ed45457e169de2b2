"""Hypothesis state machines over the lockstep; `machine` makes one of a user's candidate."""

from conformance.machines.user import machine, parts

__all__ = ["machine", "parts"]
