"""`upstream`, correct; `linux`, correct and laid out as the kernel is; `as-posted`, the patch of 2015."""

from __future__ import annotations

from conformance.candidates.builtin.uio_msi.as_posted import AsPosted
from conformance.candidates.builtin.uio_msi.linux import Linux
from conformance.candidates.builtin.uio_msi.upstream import Upstream

CANDIDATES = {"upstream": Upstream, "linux": Linux, "as-posted": AsPosted}

__all__ = ["CANDIDATES"]
