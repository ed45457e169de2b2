"""Defects of an MMU whose root types are those of the seed."""

from __future__ import annotations

from conformance.candidates.builtin.tdp_mirror.as_posted import PostedTypes
from conformance.specs.tdp_mirror.constants import TYPE_VALIDITY


class OldValidConstant(PostedTypes):
    """A caller that was left with the bare VALID bit."""

    def zap_leafs(self, start: int, end: int, flush: int) -> int:
        """Matches no root at all."""
        due = bool(flush)
        for root in self.each_root(TYPE_VALIDITY):
            due = self.zap_leafs_root(root, start, end, True, due)
        return int(due)
