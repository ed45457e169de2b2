"""Linux 6.19: a page is added to the TD when it is mapped."""

from __future__ import annotations

from conformance.candidates.builtin.tdp_mirror.upstream import Upstream
from conformance.specs.tdp_mirror.constants import EIO


class Upstream619(Upstream):
    """After the post-populate clean-ups: a page is added to the TD when it is mapped."""

    profile = "upstream-6.19"

    def sept_premap(self, gfn: int, pfn: int) -> int:
        """PAGE.ADD at once."""
        if self.port.pre_fault_allowed():
            self.port.vm_bug("prefault before finalize")
            return -EIO
        return self.sept_error(self.port.tdh_mem_page_add(gfn << 12, pfn))

    def populate(self, vcpu: int, gpa: int) -> int:
        """Nothing is left to do."""
        return 0
