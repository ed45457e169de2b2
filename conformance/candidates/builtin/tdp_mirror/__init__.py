"""TDP MMUs as Linux has and had them: 6.16, 6.19, the series as posted, and 6.16 function by function."""

from __future__ import annotations

from conformance.candidates.builtin.tdp_mirror.as_posted import AsPosted
from conformance.candidates.builtin.tdp_mirror.linux import Linux
from conformance.candidates.builtin.tdp_mirror.upstream import Upstream
from conformance.candidates.builtin.tdp_mirror.upstream_6_19 import Upstream619

CANDIDATES = {"upstream": Upstream, "upstream-6.19": Upstream619, "as-posted": AsPosted, "linux": Linux}

__all__ = ["CANDIDATES"]
