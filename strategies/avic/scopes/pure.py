"""What is asked without a vCPU: the module's setup, routers, pure functions."""

from __future__ import annotations

from itertools import product

from conformance.model.avic import operations as s
from conformance.model.avic.routing import DISABLED, Message
from conformance.model.step import Step
from conformance.specs.avic.constants import CLUSTER, CPUID_NP, CPUID_X2AVIC, CPUID_X2AVIC_EXT, FLAT
from conformance.strategies.avic.domains import APICS, FEW, RESERVED_BITS, X2AVIC_HOST, XAVIC_HOST, steps
from conformance.strategies.avic.shapes import SHAPES

_BITS = (5, 6, 12, 14, 17, 19, 25, 27, 30)
"""Feature bits beside those that matter."""
_EVERY_SETUP = tuple(
    s.HwSetup(edx, ecx, family=family, avic=avic)
    for edx in (
        XAVIC_HOST,
        X2AVIC_HOST,
        *(1 << CPUID_NP | 1 << b for b in _BITS),
        *(XAVIC_HOST | 1 << b for b in _BITS),
    )
    for ecx in (0, 1 << CPUID_X2AVIC_EXT, 1 << 5, 1 << 7)
    for family in (0x15, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x1B)
    for avic in (1, -1)
) + tuple(
    s.HwSetup(edx, ecx, npt, family, zen4, snp, wr, avic, force, ipiv)
    for edx in (XAVIC_HOST, X2AVIC_HOST, 1 << CPUID_NP, 1 << CPUID_NP | 1 << CPUID_X2AVIC)
    for ecx in (0, 1 << CPUID_X2AVIC_EXT)
    for npt in (True, False)
    for family, zen4 in ((0x19, False), (0x19, True), (0x17, False), (0x18, True), (0x1A, False))
    for snp, wr in ((False, False), (True, False), (True, True))
    for avic in (1, 0, -1, 7)
    for force in (False, True)
    for ipiv in (True, False)
)

HELPED = steps(
    *(s.LogicalIndex(ldr, dfr) for ldr in range(256) for dfr in (FLAT, CLUSTER)),
    *(s.PhysIndex(i) for i in (*range(-2, 260), 511, 512, 4095, 2**31 - 1, -(2**31))),
    *(s.X2Ldr(i) for i in (0, 1, 7, 8, 15, 16, 17, 31, 127, 254, 255, 256, 300, 511, 512, 4094, 4095)),
    *(s.HpaField(a) for a in (0x12345000, 0x8010000012345ABC, 0x1000, 0xFFF, 2**47 | 0x1000, 2**52 - 1, 2**64 - 1, 0)),
    *(
        s.Ppr(t, i)
        for t in (0, 0x0F, 0x10, 0x3F, 0x40, 0x4F, 0x50, 0xFF)
        for i in (0, 0x10, 0x3F, 0x40, 0x41, 0x50, 0xFF)
    ),
    *(s.TagRoundTrip(vm, i) for vm in (1, 2, 0x80000, 0xFFFFF) for i in (0, 1, 255, 256, 511, 512, 4095)),
)


def _unusual(setup: s.HwSetup) -> int:
    """In how many fields a host differs from the usual one."""
    usual = s.HwSetup()
    return sum(getattr(setup, name) != getattr(usual, name) for name in SHAPES[s.HwSetup].fields)


SETUPS = steps(*sorted(dict.fromkeys(_EVERY_SETUP), key=_unusual))


def routed() -> tuple[Step, ...]:
    """Messages of every kind to each set of APICs; to the big ones fewer."""
    dests = (0, 1, 2, 3, 4, 0x11, 0x13, 0xFF, 0x100, 0x10003, 0x01000001, 0x01010001, 0xFFFF0001, 0xFFFFFFFF, 300, 44)
    asked = []
    for group, dest, logical in product(APICS, dests, (False, True)):
        for mode, vector, hint in ((0, 0x41, False), (1, 0x42, False), (0, 0x43, True), (4, 2, False), (0, 15, False)):
            asked.append(s.Route(group, Message(dest, -1, logical, 0, mode, vector, hint=hint)))
            if group[0].mode != DISABLED and not hint:
                asked.append(s.Route(group, Message(dest, 0, logical, 0, mode, vector)))
        if len(group) > FEW:
            continue
        asked += [
            s.Route(group, Message(dest, -1, logical, wide=w, no_quirk=q)) for w in (False, True) for q in (False, True)
        ]
        asked += [s.Route(group, Message(dest, 0, logical, kind)) for kind in (1, 2, 3)]
        if dest not in (1, 3, 0xFF):
            continue
        asked += [
            s.Route(group, Message(dest, sender, logical, mode=mode, level=level, asserted=asserted))
            for sender in (-1, 0)
            for mode in range(8)
            for level, asserted in ((True, True), (True, False), (False, False))
        ]
    for group in APICS:
        asked += [s.Route(group, Message(1, 0, reserved=1 << bit)) for bit in RESERVED_BITS]
    return steps(*asked)


def signalled() -> tuple[Step, ...]:
    """MSIs of the modes for which KVM_SIGNAL_MSI counts acceptances."""
    flags = tuple(product((False, True), (False, True)))
    return steps(
        *(
            s.SignalMsi(group, Message(dest, -1, logical, 0, mode, 0x41 + n, hint=hint, wide=wide, no_quirk=quirk))
            for group in APICS
            for n, (dest, logical) in enumerate(product((0, 1, 3, 4, 0x13, 0xFF, 44, 300, 0xFFFFFFFF), (False, True)))
            for mode, hint in ((0, False), (1, False), (0, True))
            for wide, quirk in flags
        )
    )
