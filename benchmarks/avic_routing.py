"""How many random messages a second the KVM router answers and the predictive model judges.

Prints messages per second of the router and the model together (at least 50,000 are wanted), and
of the whole lockstep with its log, view and counts; all in processor time.
"""

from __future__ import annotations

import time
from random import Random

from conformance.candidates.builtin.avic.kvm_lapic import KvmLapic
from conformance.lockstep import Lockstep
from conformance.model.avic import Config
from conformance.model.avic import operations as s
from conformance.model.avic.routing import DISABLED, Apic, Message, kvm_route, mask
from conformance.model.step import Step
from conformance.strategies.avic.domains import random_apics, random_message
from conformance.subsystem import subsystem
from conformance.trace import Trace

MESSAGES = 20_000
WANTED = 50_000

Pair = tuple[tuple[Apic, ...], Message]


def pairs() -> list[Pair]:
    """Random APICs with random fixed or lowest-priority messages."""
    random = Random("benchmark")
    found: list[Pair] = []
    while len(found) < MESSAGES:
        apics = random_apics(random)
        message = random_message(random, len(apics))
        sent = message.sender < 0 or apics[message.sender].mode != DISABLED
        if sent and message.mode in (0, 1) and not message.level and not message.reserved:
            found.append((apics, message))
    return found


def plain(apics: tuple[Apic, ...], m: Message) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """Arguments of the candidate's entry point."""
    rows = tuple((a.id | (a.xid << 32 | 1 << 40 if a.xid >= 0 else 0), a.mode, a.spiv, a.ldr, a.dfr) for a in apics)
    flags = int(m.wide) | int(m.no_quirk) << 1
    fields = (m.sender, m.dest, int(m.logical), m.shorthand, m.mode, m.vector, int(m.level), int(m.asserted))
    return rows, (*fields, int(m.hint), flags)


def compared(found: list[Pair]) -> float:
    """Router and model on every message; messages per second."""
    router = KvmLapic(None)
    calls = [(plain(*pair), pair) for pair in found]
    started = time.process_time()
    for (rows, fields), (apics, message) in calls:
        assert router.route(rows, fields) == mask(kvm_route(apics, message)[0])  # type: ignore[arg-type]  # five and ten ints
    return len(found) / (time.process_time() - started)


def judged(found: list[Pair]) -> float:
    """The same under the lockstep."""
    of = subsystem("avic")
    lockstep = Lockstep(of, Trace("avic", "kvm-lapic", Config(), ()), KvmLapic)
    steps = [Step(s.Route(apics, message)) for apics, message in found]
    started = time.process_time()
    for step in steps:
        if lockstep.legal(step.op):
            lockstep.step(step)
    return lockstep.steps / (time.process_time() - started)


def test_messages_per_second() -> None:
    """The router and its oracle together reach the figure wanted, in processor time."""
    found = pairs()
    together = max(compared(found) for _ in range(3))
    print(f"\nrouter and model  {together:>10,.0f} messages/s, wanted {WANTED:,}")
    print(f"lockstep          {max(judged(found) for _ in range(3)):>10,.0f} messages/s")

    assert together >= WANTED


if __name__ == "__main__":
    test_messages_per_second()
