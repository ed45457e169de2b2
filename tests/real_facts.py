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
from conformance.model.avic.operations import Route, SignalMsi
from conformance.model.avic.routing import X2APIC, Apic, Message, x2_ldr
from conformance.model.step import Step
from conformance.specs.avic.constants import CLUSTER
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
FACTS: tuple[Fact, ...] = KVM_LAPIC


def main() -> None:
    """Write those that are not there as they should be."""
    for fact in FACTS:
        fact.path.parent.mkdir(exist_ok=True)
        write_atomically(fact.path, encode(fact.trace))


if __name__ == "__main__":
    main()
