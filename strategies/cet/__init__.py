"""What happens to a hypervisor's CET state: values, interleavings and worlds."""

from conformance.strategies.cet.domains import CONFIGS
from conformance.strategies.cet.races import AFTERWARDS, RACES, STARTS
from conformance.strategies.cet.scopes import SCOPES
from conformance.strategies.cet.shapes import SHAPES
from conformance.strategies.cet.suggest import suggest

__all__ = [
    "AFTERWARDS",
    "CONFIGS",
    "RACES",
    "SCOPES",
    "SHAPES",
    "STARTS",
    "suggest",
]
