"""The driver that is laid out as Linux's is, and where released Linux breaks a clause that it keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance.candidates.builtin.avic.linux import Linux
from conformance.candidates.load import load
from conformance.engines import explore
from conformance.engines.context import Context
from conformance.lockstep import run_trace
from conformance.model.avic import Config
from conformance.model.avic.operations import (
    Apic,
    Block,
    Exit,
    GuestIpi,
    GuestWrite,
    Inhibit,
    Load,
    Message,
    Put,
    Route,
    SetApicBase,
    UpdateIrte,
    VcpuCreate,
    VmRun,
)
from conformance.model.step import Fault, Step
from conformance.specs.avic.constants import APIC_DFR, APIC_LDR, APIC_SPIV, ENOMEM, NMI
from conformance.strategies.avic.scopes import SCOPES
from conformance.subsystem import subsystem
from conformance.trace import Trace
from tests.conformance.peers import linux_avic
from tests.conformance.peers.linux_avic import PEERS, RELEASED

AVIC = subsystem("avic")
CREATED = Config(vcpus=(0, 1))
RUNNING = Config(vcpus=(0, 1), running=True)
ENABLED = Config(vcpus=(0, 1), running=True, enabled=True)
MIXED = Config(vcpus=(0, 1, 2), running=True, edx=0x42001)
X2AVIC = Config(vcpus=(0, 1), running=True, enabled=True, edx=0x42001)
X2_PAIR = (Apic(id=0, mode=2, ldr=1), Apic(id=1, mode=2, ldr=2))

SHOWN: list[tuple[str, Config, tuple[Any, ...], str]] = [
    ("AVIC-061", CREATED, (VcpuCreate(0),), "AVIC-061"),
    ("AVIC-058", CREATED, (Step(VcpuCreate(2), faults=(Fault("kzalloc", -ENOMEM, 2),)),), "AVIC-058"),
    (
        "AVIC-038 DFR",
        RUNNING,
        (GuestWrite(0, APIC_DFR, 0xF0000000), GuestWrite(0, APIC_LDR, 1 << 28), GuestWrite(0, APIC_LDR, 4 << 24)),
        "AVIC-038",
    ),
    ("AVIC-038 x2APIC", X2AVIC, (GuestWrite(1, APIC_LDR, 0), SetApicBase(0, 0xFEE00D00)), "AVIC-038"),
    ("AVIC-071", ENABLED, (GuestWrite(1, APIC_LDR, 0), Exit(1), Block(1), GuestIpi(0, 0xFF, logical=True)), "AVIC-071"),
    ("AVIC-094", ENABLED, (UpdateIrte(0, 0), Exit(0), Put(0)), "AVIC-094"),
    ("AVIC-102", ENABLED, (GuestIpi(0, 1, vector=3, level=True),), "AVIC-068"),
    ("AVIC-101", ENABLED, (GuestWrite(1, APIC_SPIV, 0xFF), GuestIpi(0, 3, True, mode=1, vector=0x41)), "AVIC-068"),
    (
        "AVIC-104",
        ENABLED,
        (GuestWrite(1, APIC_SPIV, 0), Inhibit(3), GuestIpi(0, 2, True, mode=NMI)),
        "AVIC-107",
    ),
    ("AVIC-096", ENABLED, (Route(X2_PAIR, Message(dest=0xFF)),), "AVIC-096"),
    ("AVIC-083", ENABLED, (VcpuCreate(2), Load(2, 0x1000), VmRun(2), GuestIpi(0, shorthand=2)), "AVIC-083"),
]
"""What shows each behaviour in fewest steps, and the clause that is cited."""


def broken(candidate: type[Linux], config: Config, steps: tuple[Any, ...]) -> str | None:
    """The clause that a candidate breaks in these steps."""
    trace = Trace("avic", "upstream", config, tuple(s if isinstance(s, Step) else Step(s) for s in steps))
    failure = run_trace(AVIC, trace, candidate).failure
    return None if failure is None else failure.clause.id


@pytest.mark.parametrize(("name", "config", "steps", "clause"), SHOWN, ids=[name for name, *_ in SHOWN])
def test_released_linux_breaks_what_the_driver_keeps(
    name: str, config: Config, steps: tuple[Any, ...], clause: str
) -> None:
    """The same steps accuse the one and not the other."""
    assert broken(RELEASED[name], config, steps) == clause
    assert broken(Linux, config, steps) is None


SMALL = ("sleeper", "held back", "an xAPIC becomes an x2APIC", "restored", "other cores", "software APIC", "setup")
"""Worlds in which the variants differ most from one another."""


@pytest.mark.gates
@pytest.mark.parametrize("name", PEERS)
def test_a_variant_conforms(name: str) -> None:
    """Drivers that choose otherwise where a clause leaves the choice are not accused in these worlds.

    Random walks are those of all variants, in `test_peers`.
    """
    small = replace(AVIC, scopes={scope: SCOPES[scope] for scope in SMALL})
    candidate = load(f"{Path(linux_avic.__file__)}:{PEERS[name].__name__}", AVIC)
    context = Context(subsystem=small, candidate=candidate, profile=candidate.profile)

    explore.run(context)

    assert [failure.signature for failure in context.failures] == []
