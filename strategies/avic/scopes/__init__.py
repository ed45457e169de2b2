"""Small worlds of AVIC that are explored without gaps."""

from conformance.strategies.avic.scopes.worlds import PINNED, SCOPES

__all__ = ["PINNED", "SCOPES"]
