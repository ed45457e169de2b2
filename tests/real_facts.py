"""What was measured on real implementations, as traces with their results; `python -m tests.real_facts` ships them.

The results here were read off the machines, not off the model, so a trace shows that both the model and the
implementation still agree with what was seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.engines.corpus import SHIPPED
from conformance.model.avic import Config as AvicConfig
from conformance.model.avic.operations import Act, Irqfds, Route, SignalMsi
from conformance.model.avic.routing import X2APIC, Apic, Message, x2_ldr
from conformance.model.cet import operations as cet
from conformance.model.step import Step
from conformance.specs.avic.constants import CLUSTER, EAGAIN, EBADF, EBUSY, EINVAL
from conformance.specs.cet import constants as k
from conformance.trace import Trace, encode, write_atomically


@dataclass(frozen=True, slots=True)
class Fact:
    """One measurement."""

    subsystem: str
    adapter: str
    """`kvm_lapic`, …: the folder of `conformance/real/`."""
    name: str
    profile: str
    config: Any
    steps: tuple[tuple[Any, Any], ...]
    """(operation, result that was seen)."""

    @property
    def trace(self) -> Trace:
        """Without the results."""
        return Trace(self.subsystem, self.profile, self.config, tuple(Step(op) for op, _ in self.steps))

    @property
    def path(self) -> Path:
        """Where it is shipped."""
        return SHIPPED / self.subsystem / "real" / f"{self.adapter}-{self.name}.json"


FLAT8 = tuple(Apic(n, ldr=1 << 24 + n) for n in range(8))
CLUSTERS = tuple(Apic(n, ldr=(n // 4 + 1 << 4 | 1 << n % 4) << 24, dfr=CLUSTER) for n in range(8))
MIXED = tuple(
    Apic(n, ldr=1 << 24 + n) if n < 4 else Apic(n, ldr=(1 << 4 | 1 << n - 4) << 24, dfr=CLUSTER) for n in range(8)
)
X2 = tuple(Apic(n, X2APIC, ldr=x2_ldr(n)) for n in (0, 1, 255, 256, 300, 4000))
FLAGS = {"wide": True, "no_quirk": True}


def _routing(name: str, *steps: tuple[Any, Any]) -> Fact:
    return Fact("avic", "kvm_lapic", name, "kvm-lapic", AvicConfig(), steps)


def _both(apics: Sequence[Apic], message: Message, mask: int) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Whose IRR has the vector, and that the ioctl returns as many."""
    group = tuple(apics)
    return (Route(group, message), mask), (SignalMsi(group, message), mask.bit_count())


def _disabled(apics: Sequence[Apic], at: int) -> tuple[Apic, ...]:
    off = apics[at]
    return (*apics[:at], Apic(off.id, off.mode, 0xFF, off.ldr, off.dfr), *apics[at + 1 :])


KVM_LAPIC = (
    _routing("physical", *_both(FLAT8, Message(3), 0x08), *_both(FLAT8, Message(9), 0)),
    _routing("physical-broadcast", *_both(FLAT8, Message(0xFF), 0xFF)),
    _routing(
        "software-disabled",
        *_both(_disabled(FLAT8, 2), Message(2), 0),
        *_both(_disabled(FLAT8, 2), Message(0xFF), 0xFB),
        *_both(_disabled(FLAT8, 2), Message(0x06, logical=True), 0x02),
    ),
    _routing(
        "logical-flat",
        *_both(FLAT8, Message(0x05, logical=True), 0x05),
        *_both(FLAT8, Message(0, logical=True), 0),
    ),
    _routing(
        "logical-cluster",
        *_both(CLUSTERS, Message(0x1F, logical=True), 0x0F),
        *_both(CLUSTERS, Message(0xFF, logical=True), 0xFF),
        *_both(CLUSTERS, Message(0xF1, logical=True), 0),
        *_both(CLUSTERS, Message(0x71, logical=True), 0),
    ),
    _routing("flat-and-cluster", *_both(MIXED, Message(0x11, logical=True), 0x11)),
    _routing(
        "vector-hashing",
        *_both(FLAT8, Message(0xFF, logical=True, mode=1, vector=0x63), 0x08),
        *_both(FLAT8, Message(0x3F, logical=True, mode=1, vector=0x63), 0x08),
        *_both(FLAT8, Message(0x3F, logical=True, mode=1, vector=0x64), 0x10),
        *_both(FLAT8, Message(0x3F, logical=True, mode=1, vector=0x64), 0x10),
    ),
    _routing(
        "redirection-hint",
        *_both(FLAT8, Message(0x0C, logical=True, hint=True, vector=0x50), 0x04),
        *_both(FLAT8, Message(0x0C, logical=True, hint=True, vector=0x51), 0x08),
        *_both(FLAT8, Message(0xFF, hint=True, vector=0x51), 0x02),
    ),
    _routing(
        "level-triggered",
        (Route(FLAT8, Message(1, level=True)), 0x02),
        (Route(FLAT8, Message(1, level=True, asserted=False)), 0x02),
    ),
    _routing("other-modes", *((Route(FLAT8, Message(1, mode=mode)), 0) for mode in range(2, 8))),
    _routing("lowest-priority-broadcast", *_both(FLAT8, Message(0xFF, mode=1), 0xFF)),
    _routing(
        "moved-ids",
        *_both((Apic(0), Apic(1, xid=7), Apic(2, xid=7)), Message(7), 0x06),
        *_both((Apic(0), Apic(1, xid=7), Apic(2)), Message(1), 0),
        *_both((Apic(0), Apic(1, xid=7), Apic(2)), Message(7), 0x02),
    ),
    _routing("low-vectors", *(step for v in (0, 0x0F, 0x10) for step in _both(FLAT8, Message(1, vector=v), 0x02))),
    _routing(
        "x2apic-physical",
        *_both(X2, Message(0xFF, **FLAGS), 0x04),
        *_both(X2, Message(0xFFFFFFFF, **FLAGS), 0x3F),
        *_both(X2, Message(4000, **FLAGS), 0x20),
        *_both(X2, Message(300, **FLAGS), 0x10),
    ),
    _routing(
        "x2apic-broadcast-quirk",
        *_both(X2, Message(0xFF, wide=True), 0x3F),
        *_both(X2, Message(0xFFFFFFFF, wide=True), 0),
    ),
    _routing(
        "x2apic-logical",
        *_both(X2, Message(0x00000003, logical=True, **FLAGS), 0x03),
        *_both(X2, Message(0x0012F000, logical=True, **FLAGS), 0x10),
        *_both(X2, Message(0xFFFFFFFF, logical=True, **FLAGS), 0x3F),
        *_both(X2, Message(0x00000003, logical=True, mode=1, vector=0x61, **FLAGS), 0x02),
        *_both(X2, Message(0x00000003, logical=True, mode=1, vector=0x61, **FLAGS), 0x02),
    ),
    _routing(
        "x2apic-ipi",
        (Route(X2, Message(1, 0, **FLAGS)), 0x02),
        (Route(X2, Message(0, 0, shorthand=3, **FLAGS)), 0x3E),
        (Route(X2, Message(0, 1, shorthand=1, **FLAGS)), 0x02),
        (Route(X2, Message(0, 1, shorthand=2, **FLAGS)), 0x3F),
        (Route(X2, Message(1, 0, reserved=1 << 13, **FLAGS)), -1),
    ),
    _routing(
        "xapic-ipi",
        (Route(FLAT8, Message(5, 0)), 0x20),
        (Route(FLAT8, Message(0x81, 3, logical=True)), 0x81),
        (Route(FLAT8, Message(0, 2, shorthand=3)), 0xFB),
    ),
)


def _script(name: str, *acts: tuple[Act, tuple[int, tuple[int, ...]]]) -> Fact:
    """Things done with eventfds, one after the other, each with what came of it."""
    return _routing(name, (Irqfds(tuple(act for act, _ in acts)), tuple(result for _, result in acts)))


_TO_41 = (Act("route", table=((5, 0x41),)), (0, ()))
_ASSIGNED = (Act("assign", 0, 5), (0, ()))
_TWICE = Act("route", table=((5, 0x41), (5, 0x42)))
KVM_IRQFD = (
    _script("irqfd-write", _TO_41, _ASSIGNED, (Act("write", 0, 5), (0, (0x41,))), (Act("read"), (-EAGAIN, ()))),
    _script(
        "irqfd-without-route",
        _ASSIGNED,
        (Act("write", 0, 1), (0, ())),
        (Act("read"), (-EAGAIN, ())),
        _TO_41,
        (Act("write", 0, 1), (0, (0x41,))),
    ),
    _script("irqfd-busy", _ASSIGNED, (Act("assign", 0, 7), (-EBUSY, ())), (Act("assign", 0, 5), (-EBUSY, ()))),
    _script(
        "irqfd-shared-gsi",
        _TO_41,
        _ASSIGNED,
        (Act("assign", 1, 5), (0, ())),
        (Act("write", 0, 1), (0, (0x41,))),
        (Act("write", 1, 1), (0, (0x41,))),
    ),
    _script("irqfd-high-gsi", (Act("assign", 0, 4096), (0, ())), (Act("assign", 1, 2**31), (0, ()))),
    _script("irqfd-bad-fd", (Act("assign", 3, 5), (-EINVAL, ())), (Act("assign", 4, 5), (-EBADF, ()))),
    _script(
        "irqfd-deassign",
        _TO_41,
        _ASSIGNED,
        (Act("deassign", 0, 5), (0, ())),
        (Act("deassign", 0, 5), (0, ())),
        (Act("write", 0, 1), (0, ())),
        (Act("read"), (1, ())),
    ),
    _script(
        "irqfd-pending",
        _TO_41,
        (Act("write", 0, 3), (0, ())),
        (Act("assign", 0, 5), (0, (0x41,))),
        (Act("read"), (3, ())),
    ),
    _script(
        "routing-table",
        _TO_41,
        _ASSIGNED,
        (_TWICE, (-EINVAL, ())),
        (Act("route", table=((4096, 0x43),)), (-EINVAL, ())),
        (Act("write", 0, 1), (0, (0x41,))),
        (Act("route", table=((6, 0x44),)), (0, ())),
        (Act("write", 0, 1), (0, ())),
        (Act("route", table=((4095, 0x43), (5, 0x45))), (0, ())),
        (Act("write", 0, 1), (0, (0x45,))),
    ),
)
KVM = (*KVM_LAPIC, *KVM_IRQFD)


BARE = cet.Host(shstk=False, ibt=False, load_cet_entry=False, load_cet_exit=False, xss=0)
S, U, TABLE, XSS = k.S_CET, k.U_CET, k.INT_SSP_TAB, k.XSS
NOT_CANONICAL = 1 << 47


def _cet(name: str, *steps: tuple[Any, Any], host: cet.Host = cet.Host()) -> Fact:  # noqa: B008 - frozen
    """Accesses of a guest at privilege level 0."""
    return Fact("cet", "bochs_cet", name, "hardware", cet.Config(host, (cet.Cpuid(),)), ((cet.Run(0), None), *steps))


def _writes(msr: int, taken: Sequence[int], refused: Sequence[int]) -> list[tuple[Any, Any]]:
    """Values that are taken are read back; those that are refused change nothing."""
    steps: list[tuple[Any, Any]] = []
    last = 0
    for value in taken:
        steps += [(cet.Wrmsr(0, msr, value), 0), (cet.Rdmsr(0, msr), (0, value))]
        last = value
    for value in refused:
        steps += [(cet.Wrmsr(0, msr, value), 1), (cet.Rdmsr(0, msr), (0, last))]
    return steps


_CONTROL_TAKEN = (1, 2, 4, 8, 0x10, 0x20, 0x400, 0x800, 0x1000, 0x2000, 0xFFFF800000000000, 0)
_CONTROL_REFUSED = (0x40, 0x80, 0x100, 0x200, 0xC00, NOT_CANONICAL)
_POINTER_TAKEN, _POINTER_REFUSED = (4, 8, 0x7FFFFFFFFFFC, 0xFFFF800000000000, 0), (1, 2, 3, NOT_CANONICAL)
BOCHS = (
    _cet("u-cet", *_writes(U, _CONTROL_TAKEN, _CONTROL_REFUSED)),
    _cet("s-cet", *_writes(S, _CONTROL_TAKEN, _CONTROL_REFUSED)),
    *(_cet(f"pl{n}-ssp", *_writes(k.PL0_SSP + n, _POINTER_TAKEN, _POINTER_REFUSED)) for n in range(4)),
    _cet("table", *_writes(TABLE, (1, 7, 0x7FFFFFFFFFFF, 0), (NOT_CANONICAL, 1 << 63))),
    _cet("xss", *_writes(XSS, (0, 0x800, 0x1000, 0x1800), (1, 0x100, 0x2000))),
    _cet(
        "cr4-and-wp",
        (cet.MovCr4(0, True), 1),
        (cet.MovCr0(0, True), 0),
        (cet.MovCr4(0, True), 0),
        (cet.MovCr0(0, False), 1),
        (cet.MovCr4(0, False), 0),
        (cet.MovCr0(0, False), 0),
    ),
    _cet("unknown-msr", (cet.Rdmsr(0, k.INTERNAL_GUEST_SSP), (1, 0)), (cet.Wrmsr(0, k.INTERNAL_GUEST_SSP, 0), 1)),
    _cet(
        "without-cet",
        *((cet.Rdmsr(0, msr), (1, 0)) for msr in (U, S, k.PL0_SSP, TABLE)),
        *((cet.Wrmsr(0, msr, 0), 1) for msr in (U, S, k.PL0_SSP, TABLE)),
        (cet.MovCr0(0, True), 0),
        (cet.MovCr4(0, True), 1),
        host=BARE,
    ),
)
FACTS: tuple[Fact, ...] = (*KVM, *BOCHS)


def main() -> None:
    """Write those that are not there as they should be."""
    for fact in FACTS:
        fact.path.parent.mkdir(exist_ok=True)
        write_atomically(fact.path, encode(fact.trace))


if __name__ == "__main__":
    main()
