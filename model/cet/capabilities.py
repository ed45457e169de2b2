"""What KVM may offer on a host."""

from __future__ import annotations

from conformance.model.cet.operations import Host
from conformance.specs.cet import clauses as c
from conformance.specs.clause import Clause

Known = tuple[bool, bool]
"""Whether a hypervisor knows of shadow stacks, and of indirect branch tracking: nobody owes either."""
BOTH: Known = (True, True)
KINDS: tuple[Known, ...] = (BOTH, (True, False), (False, True), (False, False))
"""What there may be, the whole first."""


def capabilities(host: Host, known: Known = BOTH) -> tuple[bool, bool, int, Clause]:
    """SHSTK, IBT and XSS bits that KVM may offer on this host, and the clause that decides the most.

    Who does not know of one of the two features offers what is left of it.
    """
    shstk, ibt, because = host.shstk and known[0], host.ibt and known[1], c.XSS_AND_FEATURES_TOGETHER
    xss = host.xss & 0x1800 if host.xsaves else 0
    if ibt and host.vendor == "amd":
        ibt, because = False, c.NO_IBT_ON_SVM
    controls = host.load_cet_entry and host.load_cet_exit and host.basic56 and host.unrestricted
    if host.vendor == "intel" and not controls:
        shstk, ibt, because = False, False, c.VMX_PREREQUISITES
    if not host.tdp and shstk:
        shstk, because = False, c.PAGING_PREREQUISITES
    if host.smaller_maxphyaddr and (shstk or ibt):
        shstk, ibt, because = False, False, c.PAGING_PREREQUISITES
    if xss != 0x1800 and (shstk or ibt):
        shstk, ibt, because = False, False, c.XSS_AND_FEATURES_TOGETHER
    return shstk, ibt, xss if shstk or ibt else 0, because
