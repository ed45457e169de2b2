"""What the fields of AVIC's operations may hold, plainest first, and the worlds that traces start in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from conformance.model.avic import Config
from conformance.model.avic.operations import Act
from conformance.model.avic.routing import DISABLED, X2APIC, XAPIC, Apic, Message, x2_ldr
from conformance.model.step import Fault, Step
from conformance.specs.avic.constants import (
    APIC_BASE,
    APIC_DFR,
    APIC_ID,
    APIC_LDR,
    APIC_LVT0,
    APIC_LVTT,
    APIC_RRR,
    APIC_SPIV,
    APIC_TDCR,
    APIC_TPR,
    BASE_AE,
    BASE_EXTD,
    CLUSTER,
    CPUID_AVIC,
    CPUID_NP,
    CPUID_X2AVIC,
    CPUID_X2AVIC_EXT,
    FLAT,
)
from conformance.strategies.domain import Domain

XAVIC_HOST = 1 << CPUID_NP | 1 << CPUID_AVIC
X2AVIC_HOST = XAVIC_HOST | 1 << CPUID_X2AVIC
ON = APIC_BASE | 1 << BASE_AE
X2_ON = ON | 1 << BASE_EXTD

RUNNING = Config(vcpus=(0, 1), running=True, enabled=True)
THREE = Config(vcpus=(0, 1, 2), running=True, enabled=True)
RESET = Config(vcpus=(0, 1), running=True)
"""Two running vCPUs with reset values: software-disabled, without logical ids."""
X2 = Config(vcpus=(0, 1, 17), running=True, enabled=True, x2apic=True, edx=X2AVIC_HOST)

CONFIGS = (
    RUNNING,
    Config(),
    Config(vcpus=(0, 1)),
    THREE,
    RESET,
    X2,
    Config(vcpus=(0, 1, 17), running=True, enabled=True, x2apic=True),
    Config(vcpus=(0, 1), running=True, enabled=True, edx=X2AVIC_HOST),
    Config(vcpus=(0, 1, 2), running=True, enabled=True, family=0x17, stale_running=True),
    Config(vcpus=(0, 1), running=True, enabled=True, ipiv=False),
    Config(vcpus=(0, 1), tagged=True),
    Config(vcpus=(0, 1), running=True, enabled=True, tagged=True),
    Config(vcpus=(0, 1, 2), running=True, enabled=True, busy_sticky=True, eoi_cleared=True, last_index=True),
    Config(vcpus=(0, 1), running=True, checks_spiv=True, clears_tmr=True, nonfixed_is_invalid_target=True),
    Config(vcpus=(0, 1), running=True, enabled=True, narrow_host_ids=True),
    Config(vcpus=(0,)),
    Config(vcpus=(0, 1), running=True, enabled=True, max_vcpu_ids=2),
    Config(vcpus=(0, 15, 31), running=True, enabled=True, x2apic=True, edx=X2AVIC_HOST),
    Config(vcpus=(0, 128, 254), running=True, enabled=True),
    Config(avic=0),
    Config(vcpus=(0, 1), irqchip=False),
    Config(vcpus=(0, 1), avic=0),
    Config(vcpus=(0, 1), avic=0, software=True),
    Config(next_tag=0xFFFFF),
    Config(next_tag=0xFFFFFFFF),
    Config(edx=X2AVIC_HOST, ecx=1 << CPUID_X2AVIC_EXT),
    Config(vcpus=(0, 255, 256), edx=X2AVIC_HOST),
    Config(vcpus=(0,), running=True, enabled=True),
    Config(vcpus=(0,), running=True, enabled=True, edx=X2AVIC_HOST),
    Config(vcpus=(0, 1, 2), running=True, edx=X2AVIC_HOST),
    Config(vcpus=(0, 1, 257), running=True, enabled=True, x2apic=True, edx=X2AVIC_HOST),
    Config(vcpus=(0, 1, 300), running=True, enabled=True, x2apic=True, edx=X2AVIC_HOST, ecx=1 << CPUID_X2AVIC_EXT),
    Config(vcpus=(0, 1), running=True, x2apic=True, edx=X2AVIC_HOST, ecx=1 << CPUID_X2AVIC_EXT, max_vcpu_ids=512),
)

IDS = Domain((0, 1, 2), (17, 255, 256, 300, 15, 31, 128, 254), usual=0.9)
NEW_IDS = Domain((0, 1, 2), (255, 254, 17, 256, 300, 511, 512, 4095, 4096, 7), usual=0.75)
VECTORS = Domain((0x41, 0x52, 0x30), (0, 15, 16, 31, 32, 0xF0, 0xFE, 0xFF), usual=0.85)
DELIVERED = Domain((0x41, 0x52, 0x30), (16, 32, 0xF0, 0xFF))
LDRS = Domain((0, 1, 2, 4, 3, 0x11, 0x12), (8, 0x80, 0xFF, 0x10, 0x18, 0x1F, 0xE8, 0xF0, 0xF1), (0, 0xFF))
DESTINATIONS = Domain(
    (1, 0, 2, 3, 0xFF),
    (4, 7, 6, 0x11, 0x12, 0x13, 0x80, 0xFE, 0x100, 0xFFFF, 0x10000, 0x10002, 0xF8000, 0x100001, 0xFFFFFFFF, 0x20002, 17)
    + (0x01000001, 0x01010001, 0xFFFF0001),
    usual=0.75,
)
HOST_IDS = Domain((0x20, 0x21, 0x22, 0x123), (0, 0xFE, 0xFF, 0x100, 0xFFE, 0xFFF, 0x1000), usual=0.7)
TPRS = Domain((0, 0x40, 0x50, 0xFF), (0x0F, 0x10, 0x3F, 0x4F, 0x51), (0, 0xFF))
SPIVS = Domain((0x1FF, 0xFF), (0x13F, 0x3FF, 0x2FF))

WRITES: dict[int, tuple[int, ...]] = {
    APIC_TPR: (0, 0x40, 0x50, 0xFF),
    APIC_SPIV: (0x1FF, 0xFF, 0x7FF, 0x2FF),
    APIC_LDR: (0, 0x01000000, 0x02000000, 0x03000000, 0x11000000, 0x12000000, 0xF1000000, 0x04ABCDEF, 0x10000000),
    APIC_DFR: (FLAT, CLUSTER, 0, 0xF0000000),
    APIC_ID: (0, 0x01000000, 0x02000000, 0x05ABCDEF),
    APIC_LVTT: (0x10000, 0x100EF),
    APIC_LVT0: (0x10000,),
    APIC_TDCR: (0, 0xB, 0xFFFFFFFF),
    APIC_RRR: (0, 0xFFFFFFFF),
    0x280: (0, 1),
    0x330: (0x100FE,),
    0x380: (0, 1000),
    0x030: (0,),
    0x0A0: (0xFF,),
    0x100: (0xFFFFFFFF,),
    0x210: (0xFFFFFFFF,),
    0x390: (5,),
    0x400: (1,),
    0x480: (0,),
    0x500: (0,),
}
"""What guests write, by offset."""


APICS: tuple[tuple[Apic, ...], ...] = (
    (Apic(0, ldr=1 << 24), Apic(1, ldr=2 << 24)),
    (Apic(0, ldr=1 << 24), Apic(1, ldr=2 << 24), Apic(2, spiv=0xFF, ldr=4 << 24)),
    (Apic(0, ldr=0x11 << 24, dfr=CLUSTER), Apic(1, ldr=0x12 << 24, dfr=CLUSTER), Apic(2, ldr=0x21 << 24, dfr=CLUSTER)),
    tuple(Apic(i, X2APIC, ldr=x2_ldr(i)) for i in (0, 1, 17)),
    (Apic(0, ldr=1 << 24), Apic(1, X2APIC, ldr=x2_ldr(1)), Apic(16, X2APIC, ldr=x2_ldr(16)), Apic(3)),
    (Apic(0, ldr=1 << 24), Apic(1, DISABLED), Apic(2, ldr=3 << 24), Apic(3, spiv=0xFF, ldr=1 << 24)),
    (Apic(0, ldr=1 << 24), Apic(1, ldr=0x11 << 24, dfr=CLUSTER), Apic(2), Apic(255, X2APIC, ldr=x2_ldr(255))),
    (Apic(0), Apic(256), Apic(300, ldr=8 << 24), Apic(44, ldr=4 << 24)),
    (Apic(0), Apic(256, X2APIC, ldr=x2_ldr(256)), Apic(300, X2APIC, ldr=x2_ldr(300)), Apic(2, ldr=0)),
    (Apic(0, ldr=1 << 24, xid=1), Apic(1, ldr=2 << 24), Apic(2, ldr=4 << 24, dfr=0x5FFFFFFF)),
    (Apic(1, X2APIC, ldr=x2_ldr(1)), Apic(2, xid=2), Apic(3, X2APIC, spiv=0xFF, ldr=x2_ldr(3))),
    (Apic(0, ldr=0xF1 << 24, dfr=CLUSTER), Apic(1, ldr=0xF2 << 24, dfr=CLUSTER)),
    (Apic(0, spiv=0x2FF, ldr=1 << 24), Apic(1, spiv=0x100, ldr=2 << 24), Apic(2, spiv=0, ldr=4 << 24)),
    (Apic(0, xid=1), Apic(1, X2APIC, ldr=x2_ldr(1))),
    (Apic(0, xid=255), Apic(255), Apic(1, ldr=4 << 24, dfr=0x5FFFFFFF), Apic(2, ldr=0x13 << 24, dfr=0x5FFFFFFF)),
    tuple(Apic(i, X2APIC, ldr=x2_ldr(i)) for i in range(17)),
    tuple(Apic(i, ldr=1 << 24 + i) for i in range(8)),
    tuple(Apic(i, ldr=(i // 4 << 4 | 1 << i % 4) << 24, dfr=CLUSTER) for i in range(12)),
)
"""Sets of APICs: flat, cluster, x2APIC, mixed, aliased, disabled in hardware or software, changed ids, many."""

FEW = 5
"""APICs beyond which a set is tried with fewer messages."""
RESERVED_BITS = (13, 16, 17, *range(20, 32))
"""Bits of ICR low that an x2APIC reserves."""


def an_apic(apic_id: int, mode: int, spiv: int, ldr: int, dfr: int, xid: int) -> Apic:
    """An APIC of any mode; in x2APIC mode LDR follows from the id."""
    if mode == X2APIC:
        return Apic(apic_id, mode, spiv, x2_ldr(apic_id))
    return Apic(apic_id, mode, spiv, ldr << 24, dfr, xid if mode == XAPIC else -1)


def random_apics(random: Random) -> tuple[Apic, ...]:
    """The same as `apics`, quickly."""
    choice = random.choice
    ids = random.sample((0, 1, 2, 3, 15, 16, 17, 31, 127, 255, 256, 300, 511), random.randint(1, 5))
    kinds = choice(((XAPIC,), (XAPIC,), (X2APIC,), (XAPIC, X2APIC), (XAPIC, X2APIC, DISABLED)))
    dfrs = choice(((FLAT,), (FLAT,), (CLUSTER,), (FLAT, CLUSTER), (FLAT, 0x5FFFFFFF)))
    xids = choice(((-1,), (-1,), (-1,), (-1, 0, 1, 44)))
    return tuple(
        an_apic(i, choice(kinds), choice((0x1FF, 0x1FF, 0xFF, 0x2FF)), choice(LDRS.values), choice(dfrs), choice(xids))
        for i in ids
    )


def random_message(random: Random, count: int) -> Message:
    """The same as `messages`, quickly, and mostly legal."""
    choice = random.choice
    sender = choice((-1, random.randrange(count)))
    ipi = sender >= 0
    rare = random.random() < 0.1
    return Message(
        dest=DESTINATIONS.sample(random),
        sender=sender,
        logical=random.random() < 0.5,
        shorthand=choice((0, 0, 0, 1, 2, 3)) if ipi else 0,
        mode=choice((0, 0, 0, 1, 4, 5, 6, 2, 3, 7)),
        vector=VECTORS.sample(random),
        level=random.random() < 0.1,
        asserted=random.random() < 0.8,
        hint=not ipi and rare,
        wide=random.random() < 0.3,
        no_quirk=random.random() < 0.3,
        reserved=1 << choice(RESERVED_BITS) if ipi and random.random() < 0.05 else 0,
    )


def _samples(make: Any, count: int) -> tuple[Any, ...]:
    random = Random("avic")
    return tuple(make(random) for _ in range(count))


GSIS = (0, 1, 5, 23, 24, 1023, 1024, 4095, 4096, 2**31, 2**32 - 1)


def random_act(random: Random) -> Act:
    """Something to do with an eventfd or the routing table, mostly with those that others use."""
    choice = random.choice
    what = choice(("route", "assign", "assign", "deassign", "write", "write", "write", "read"))
    fd, gsi = choice((0, 0, 1, 2)), choice((0, 0, 1, choice(GSIS)))
    match what:
        case "route":
            chosen = random.sample(GSIS, random.randint(0, 3))
            twice = chosen[:1] if random.random() < 0.1 else []
            return Act("route", table=tuple((at, 0x41 + n) for n, at in enumerate((*chosen, *twice))))
        case "write":
            return Act("write", fd, choice((1, 1, 5, 2**31)))
        case "read":
            return Act("read", fd)
    return Act(what, choice((fd, fd, fd, choice((3, 4)))), gsi)


def random_script(random: Random) -> tuple[Act, ...]:
    """What is done in one VM; a route and an assigned eventfd begin most of them."""
    begun = (Act("route", table=((0, 0x41), (1, 0x42))), Act("assign", 0, 0)) if random.random() < 0.7 else ()
    return (*begun, *(random_act(random) for _ in range(random.randint(1, 10))))


_ROUTED_ACT = Act("route", table=((0, 0x41),))


class Scripts(Domain[tuple[Act, ...]]):
    """Lists of acts, which are made smaller act by act."""

    def simpler(self, value: tuple[Act, ...]) -> Sequence[tuple[Act, ...]]:
        """Without some of the acts, the most first; then with a number less in all or in one of them."""
        return tuple(self._smaller(value))

    @staticmethod
    def _smaller(value: tuple[Act, ...]) -> Iterator[tuple[Act, ...]]:
        size = len(value) - 1
        while size:
            for at in range(len(value) - size, -1, -1):
                yield value[:at] + value[at + size :]
            size = size // 2
        yield from _renumbered(value)
        for at, act in enumerate(value):
            for plainer in _plainer(act):
                yield (*value[:at], plainer, *value[at + 1 :])


def _renumbered(acts: tuple[Act, ...]) -> Iterator[tuple[Act, ...]]:
    """An eventfd, or a gsi, is called by a smaller number that no act has."""
    fds = {act.fd for act in acts if act.what != "route"}
    for new, old in ((new, old) for new in (0, 1) for old in sorted(fds) if new < old < 3 and new not in fds):
        yield tuple(replace(act, fd=new) if act.fd == old else act for act in acts)
    named = [act for act in acts if act.what in ("assign", "deassign")]
    gsis = {act.n for act in named} | {gsi for act in acts for gsi, _ in act.table}
    for new, old in ((new, old) for new in (0, 1) for old in sorted(gsis) if new < old and new not in gsis):
        tables = (tuple((new if gsi == old else gsi, vector) for gsi, vector in act.table) for act in acts)
        yield tuple(
            replace(act, n=new if act in named and act.n == old else act.n, table=table)
            for act, table in zip(acts, tables, strict=True)
        )


def _plainer(act: Act) -> Iterator[Act]:
    """The same with a route less, with the first eventfd or gsi, with one written."""
    for at in range(len(act.table)):
        yield replace(act, table=act.table[:at] + act.table[at + 1 :])
    if act.fd:
        yield replace(act, fd=0)
    for n in (1,) if act.what == "write" else (0, 1):
        if act.n > n:
            yield replace(act, n=n)


SCRIPTS = Scripts(
    (
        (_ROUTED_ACT,),
        (_ROUTED_ACT, Act("assign"), Act("write", 0, 1)),
        (_ROUTED_ACT, Act("assign"), Act("write", 0, 5), Act("read")),
        (Act("assign"), Act("write", 0, 1), Act("read")),
    ),
    _samples(random_script, 400),
    usual=0.05,
)
ROUTED = Domain(APICS, _samples(random_apics, 400), usual=0.3)
MESSAGES = Domain((Message(0), Message(1)), _samples(lambda r: random_message(r, 4), 3000), usual=0.02)


# -- small worlds


def steps(*ops: Any) -> tuple[Step, ...]:
    """These operations, without faults or company."""
    return tuple(Step(op) for op in ops)


def faulty(op: Any, *calls: tuple[str, int, int]) -> tuple[Step, ...]:
    """The operation with one refusal at a time: call, errno, and which call of that name it strikes."""
    return tuple(Step(op, (Fault(call, value, nth),)) for call, value, nth in calls)
