"""What may happen to an AVIC driver and to a router, simplest first."""

from conformance.strategies.avic.domains import CONFIGS
from conformance.strategies.avic.races import RACES, STARTS
from conformance.strategies.avic.scopes import SCOPES
from conformance.strategies.avic.shapes import SHAPES
from conformance.strategies.avic.suggest import opening, suggest

AHEAD = 4
"""A world of AVIC takes long to start: with two steps, half of an exploration's time went there."""

__all__ = ["AHEAD", "CONFIGS", "RACES", "SCOPES", "SHAPES", "STARTS", "opening", "suggest"]
