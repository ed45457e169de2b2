"""What was measured on Debian kernels, as traces with their results; `python -m tests.linux_facts` ships them."""

from __future__ import annotations

from typing import Any

from conformance.model.avic import Config as AvicConfig
from conformance.model.avic import operations as avic
from conformance.model.tdp_mirror import operations as tdp
from conformance.model.uio_msi import Config as UioConfig
from conformance.model.uio_msi import operations as uio
from conformance.real.linux_tdpmmu.adapter import HUGE, PLAIN
from conformance.specs.uio_msi.constants import EAGAIN, EBADF, EINVAL, ENOSYS, EOPNOTSUPP
from conformance.trace import encode, write_atomically
from tests.real_facts import Fact

A, B = uio.FIRST_FD, uio.FIRST_FD + 1
OPENED = ((uio.Probe(), 0), (uio.Open(), 0))


def _vfio(name: str, *steps: tuple[Any, Any], vectors: int = 2) -> Fact:
    return Fact("uio_msi", "linux_vfio", name, "vfio-like", UioConfig(vectors=vectors), (*OPENED, *steps))


VFIO = (
    _vfio(
        "two-vectors-one-eventfd",
        (uio.IrqSet(0, A), 0), (uio.IrqSet(1, A), 0), (uio.RaiseVector(0), 0), (uio.RaiseVector(1), 0),
        (uio.ReadEventfd(A), 18), (uio.ReadEventfd(A), -EAGAIN),
    ),
    _vfio("signals-add-up", (uio.IrqSet(0, A), 0), (uio.RaiseMany(0, 3), 0), (uio.ReadEventfd(A), 19)),
    _vfio(
        "replaced",
        (uio.IrqSet(0, A), 0), (uio.IrqSet(0, B), 0), (uio.RaiseVector(0), 0), (uio.ReadEventfd(A), 16),
        (uio.ReadEventfd(B), 33),
    ),
    _vfio(
        "bad-fd-loses-the-old-one",
        (uio.IrqSet(0, A), 0), (uio.IrqSet(0, uio.NEVER_OPENED_FD), -EBADF), (uio.RaiseVector(0), 0),
        (uio.ReadEventfd(A), 16), (uio.IrqSet(0, uio.NOT_EVENTFDS[0]), -EINVAL), (uio.IrqSet(0, A), 0),
        (uio.ReadEventfd(A), 1),
    ),
    _vfio("beyond-the-table", (uio.IrqSet(2, A), -EINVAL), (uio.IrqSet(2**32 - 1, A), -EINVAL)),
    _vfio(
        "latched-while-unassigned",
        (uio.RaiseVector(1), 0), (uio.RaiseVector(1), 0), (uio.IrqSet(1, A), 0), (uio.ReadEventfd(A), 17),
        (uio.IrqSet(1, -1), 0), (uio.RaiseVector(1), 0), (uio.ReadEventfd(A), -EAGAIN),
    ),
    _vfio(
        "closed-eventfd-keeps-its-reference",
        (uio.IrqSet(0, A), 0), (uio.CloseFd(A), 0), (uio.RaiseVector(0), 0), (uio.IrqSet(0, A), -EBADF),
    ),
    _vfio(
        "second-handle",
        (uio.Open(), 0), (uio.IrqSet(0, A), 0), (uio.Close(), 0), (uio.RaiseVector(0), 0), (uio.ReadEventfd(A), 17),
        (uio.Close(), 0), (uio.RaiseVector(0), 0), (uio.Open(), 0), (uio.RaiseVector(0), 0),
        (uio.ReadEventfd(A), -EAGAIN),
    ),
    _vfio(
        "bound-again",
        (uio.IrqSet(0, A), 0), (uio.Close(), 0), (uio.Remove(), 0), (uio.Probe(), 0), (uio.Open(), 0),
        (uio.RaiseVector(0), 0), (uio.ReadEventfd(A), 16), (uio.IrqSet(0, A), 0), (uio.ReadEventfd(A), 1),
    ),
    _vfio("no-mask-of-vectors", (uio.Write(1), -EOPNOTSUPP), (uio.Write(0), -EOPNOTSUPP)),
    _vfio(
        "intx-masks-itself",
        (uio.IrqSet(0, A), 0), (uio.SetIntx(True), 0), (uio.SetIntx(True), 0), (uio.ReadEventfd(A), 17),
        (uio.Write(1), 0), (uio.ReadEventfd(A), 1), (uio.SetIntx(False), 0), (uio.Write(1), 0),
        (uio.ReadEventfd(A), -EAGAIN), vectors=0,
    ),
)  # fmt: skip


def _uio(name: str, *steps: tuple[Any, Any]) -> Fact:
    return Fact("uio_msi", "linux_uio", name, "as-posted", UioConfig(vectors=0), (*OPENED, *steps))


UIO = (
    _uio(
        "one-event-then-masked",
        (uio.IrqSet(0, A), 0), (uio.SetIntx(True), 0), (uio.SetIntx(True), 0), (uio.ReadEventfd(A), 17),
    ),
    _uio(
        "unmasked-while-asserted",
        (uio.IrqSet(0, A), 0), (uio.SetIntx(True), 0), (uio.ReadEventfd(A), 17), (uio.ConfigIntx(False), 0),
        (uio.ReadEventfd(A), 1), (uio.SetIntx(False), 0), (uio.ConfigIntx(False), 0), (uio.ReadEventfd(A), -EAGAIN),
    ),
    _uio("no-irqcontrol", (uio.Write(1), -ENOSYS), (uio.Write(0), -ENOSYS)),
    _uio(
        "second-opener-sees-nothing-old",
        (uio.IrqSet(0, A), 0), (uio.SetIntx(True), 0), (uio.Open(), 0), (uio.ReadEventfd(A), 17), (uio.Close(), 0),
        (uio.ReadEventfd(A), -EAGAIN),
    ),
)  # fmt: skip


def _avic(name: str, *steps: tuple[Any, Any]) -> Fact:
    return Fact("avic", "linux_avic", name, "upstream", AvicConfig(vcpus=(0, 1)), steps)


AVIC = (
    _avic(
        "running-while-in-kvm-run",
        (avic.Load(0, 0x20), 0), (avic.Load(1, 0x21), 0), (avic.Put(0), 0), (avic.Put(1), 0),
    ),
    _avic(
        "irr-in-the-backing-page",
        (avic.SetLapic(1, ldr=2), 0), (avic.Deliver(1, 0x41), 0), (avic.GetLapic(1, 0x220), 2),
    ),
    _avic(
        "doorbell",
        (avic.SetLapic(0, ldr=1), 0), (avic.Load(0, 0x20), 0), (avic.Deliver(0, 0x41), 0), (avic.Put(0), 0),
    ),
    _avic(
        "aliases-inhibit",
        (avic.SetLapic(0, ldr=1), 0), (avic.SetLapic(1, ldr=1), 0), (avic.Enter(0), 0), (avic.Enter(1), 0),
    ),
    _avic(
        "aliases-share-an-entry",
        (avic.SetLapic(1, ldr=1), 0), (avic.SetLapic(0, ldr=1), 0), (avic.Enter(0), 0),
    ),
    _avic(
        "mixed-models-inhibit",
        (avic.SetLapic(0, ldr=1), 0), (avic.SetLapic(1, ldr=2, cluster=True), 0), (avic.Enter(1), 0),
        (avic.SetLapic(0, ldr=1 << 4 | 1, cluster=True), 0), (avic.Enter(1), 1),
    ),
    _avic(
        "changed-id",
        (avic.Enter(0), 1), (avic.SetLapic(1, xid=7), 0), (avic.Enter(0), 0), (avic.SetLapic(1), 0), (avic.Enter(0), 1),
    ),
    _avic("largest-id", (avic.VcpuCreate(254), 0), (avic.Enter(254), 1)),
    _avic("no-index", (avic.SetLapic(0, ldr=3), 0), (avic.SetLapic(1, ldr=0), 0), (avic.SetLapic(0, ldr=4), 0)),
)  # fmt: skip


def _tdp(name: str, *steps: tuple[Any, Any], config: Any = PLAIN) -> Fact:
    return Fact("tdp_mirror", "linux_tdpmmu", name, "upstream", config, ((tdp.VcpuCreate(0), 0), *steps))


TDPMMU = (
    _tdp("no-slot", (tdp.Prefault(0, 0x8000), -2)),
    _tdp("write-protected", (tdp.Prefault(0, 0), 4096), (tdp.WrprotSlot(0), 0), (tdp.Prefault(0, 0x1000), 4096)),
    _tdp(
        "host-takes-pages-back",
        (tdp.Prefault(0, 0), 4096), (tdp.Prefault(0, 0x1000), 4096), (tdp.HvaInvalidate(0, 1), 0),
        (tdp.Prefault(0, 0), 4096),
    ),
    _tdp(
        "pages-behind-no-slot",
        (tdp.HvaInvalidate(0, 12), 0), (tdp.SlotCreate(2, 8, 1), 0), (tdp.Prefault(0, 0x8000), 4096),
    ),
    _tdp("slot-goes", (tdp.Prefault(0, 0), 4096), (tdp.ZapAllFast(), 0)),
    _tdp(
        "huge-pages",
        (tdp.Prefault(0, 0x3000), 4096), (tdp.Prefault(0, 0x1FF000), 4096), (tdp.Prefault(0, 0x201000), 4096),
        (tdp.HvaInvalidate(0, 512), 0), (tdp.Prefault(0, 0), 4096), config=HUGE,
    ),
)  # fmt: skip
PREFAULT = (
    _tdp("malformed-prefault", (tdp.Prefault(0, 0x800), -EINVAL), (tdp.Prefault(0, 0, 0), -EINVAL)),
)  # fmt: skip
"""Of kernels that have KVM_PRE_FAULT_MEMORY."""
NOT_IN_6_1 = ("mixed-models-inhibit", "no-index", "changed-id")
ALIASED = tuple(fact for fact in AVIC if "alias" in fact.name or fact.name in NOT_IN_6_1)
"""Of kernels that switch AVIC off where a logical id is ambiguous, and on again where ids are what they were."""
FACTS: tuple[Fact, ...] = (*VFIO, *UIO, *AVIC, *TDPMMU, *PREFAULT)


def _found(adapter: str, name: str, config: Any, *ops: Any) -> Fact:
    """What `docs/findings.md` has; the results are those that it should be."""
    of = {"linux_avic": ("avic", "upstream"), "linux_tdpmmu": ("tdp_mirror", "upstream")}[adapter]
    return Fact(of[0], adapter, name, of[1], config, tuple((op, None) for op in ops))


ONE, TWO = AvicConfig(vcpus=(0,)), AvicConfig(vcpus=(0, 1))
FOUND = {
    "LINUX-1": _found("linux_avic", "refused-vcpu-takes-the-entry", ONE, avic.VcpuCreate(0)),
    "LINUX-2": _found("linux_avic", "low-bits-of-tpr", ONE, avic.SetLapic(0, tpr=0xFF), avic.Enter(0)),
    "LINUX-3": _found(
        "linux_avic", "entry-lost-by-dfr", ONE, avic.SetLapic(0, ldr=1), avic.SetLapic(0, ldr=1, cluster=True),
        avic.Enter(0),
    ),
    "LINUX-3 by an alias": _found(
        "linux_avic", "entry-lost-by-an-alias", TWO, avic.SetLapic(0, ldr=1), avic.SetLapic(1, ldr=1),
        avic.SetLapic(1, ldr=2), avic.Enter(0),
    ),
    "LINUX-4": _found(
        "linux_tdpmmu", "prefault-after-a-slot-went", PLAIN, tdp.VcpuCreate(0), tdp.Prefault(0, 0), tdp.ZapAllFast(),
        tdp.Prefault(0, 0),
    ),
    "LINUX-6": _found(
        "linux_tdpmmu", "prefault-of-a-write-protected-page", PLAIN, tdp.VcpuCreate(0), tdp.Prefault(0, 0),
        tdp.WrprotSlot(0), tdp.Prefault(0, 0),
    ),
}  # fmt: skip
"""By finding: the trace that shows it."""


def main() -> None:
    """Write those that are not there as they should be."""
    for fact in (*FACTS, *FOUND.values()):
        fact.path.parent.mkdir(exist_ok=True)
        write_atomically(fact.path, encode(fact.trace))


if __name__ == "__main__":
    main()
