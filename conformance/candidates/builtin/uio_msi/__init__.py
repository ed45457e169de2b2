"""Two drivers: `upstream`, correct, and `as-posted`, the patch of 2015 with its defects."""

from __future__ import annotations

from conformance.candidates.builtin.uio_msi.as_posted import AsPosted
from conformance.candidates.builtin.uio_msi.upstream import Upstream

CANDIDATES = {"upstream": Upstream, "as-posted": AsPosted}

__all__ = ["CANDIDATES"]
