"""TDP MMUs as Linux has and had them: 6.16, 6.19, and the series as posted."""

from __future__ import annotations

from conformance.candidates.builtin.tdp_mirror.as_posted import AsPosted
from conformance.candidates.builtin.tdp_mirror.upstream import Upstream
from conformance.candidates.builtin.tdp_mirror.upstream_6_19 import Upstream619

CANDIDATES = {"upstream": Upstream, "upstream-6.19": Upstream619, "as-posted": AsPosted}

__all__ = ["CANDIDATES"]
