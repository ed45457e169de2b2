"""Small worlds that are explored without gaps."""

from conformance.strategies.cet.scopes.worlds import SCOPES

__all__ = ["SCOPES"]
