"""Hypervisors that handle CET, written as drivers are: mutable per-vCPU structures and early returns.

`Upstream` keeps PL0..PL3_SSP and U_CET in the guest fpstate. `Repaired` swaps PL0..PL2_SSP by hand as
the seed did, without the seed's mistakes; the zoo's as-posted defects are derived from it. `AsPosted`
and `V5` are the designs as they were posted, mistakes and all. `Linux` is laid out as KVM's files are.
"""

from conformance.candidates.builtin.cet.as_posted import AsPosted
from conformance.candidates.builtin.cet.hardware import Hardware
from conformance.candidates.builtin.cet.linux import Linux
from conformance.candidates.builtin.cet.repaired import Repaired
from conformance.candidates.builtin.cet.upstream import Upstream
from conformance.candidates.builtin.cet.v5 import V5

CANDIDATES: dict[str, type] = {
    "upstream": Upstream,
    "hardware": Hardware,
    "repaired": Repaired,
    "as-posted": AsPosted,
    "v5": V5,
    "linux": Linux,
}

__all__ = ["CANDIDATES"]
