"""Hypothesis state machines over the lockstep; `machine` makes one of a user's candidate, `Play` takes one trace."""

from conformance.machines.play import Play
from conformance.machines.user import machine, parts

__all__ = ["Play", "machine", "parts"]
