"""The zoo of uio_msi."""

from __future__ import annotations

from conformance.candidates.defects.uio_msi.upstream import DEFECTS

__all__ = ["DEFECTS"]
