"""Two operations at once, where their order matters to a driver."""

from __future__ import annotations

from typing import Any

from conformance.model.avic import Config
from conformance.model.avic import operations as s
from conformance.model.step import Step
from conformance.specs.avic.constants import (
    APIC_DFR,
    APIC_ID,
    APIC_LDR,
    APIC_SPIV,
    CLUSTER,
    INHIBIT_BLOCKIRQ,
    INHIBIT_IRQWIN,
)
from conformance.strategies.avic.domains import RUNNING, THREE, X2, steps
from conformance.strategies.domain import Race


def _race(config: Config, *ops: Any, switches: int = 1) -> Race:
    """The last two operations at once, after the others; with no switch, the gate leaves it to random schedules."""
    *before, left, right = steps(*ops)
    return Race(config, tuple(before), left, right, switches)


_SLEEPING = (s.Exit(1), s.Block(1))
_INHIBITED = (s.Inhibit(INHIBIT_BLOCKIRQ, True),)
INHIBIT, _ALLOW = s.Inhibit(INHIBIT_BLOCKIRQ, True), s.Inhibit(INHIBIT_BLOCKIRQ, False)
_POST = s.UpdateIrte(0, 1)

RACES: dict[str, Race] = {
    "creation beside creation": _race(Config(), s.VmCreate(), s.VcpuCreate(0), s.VcpuCreate(1), switches=0),
    "creation beside its namesake": _race(Config(), s.VmCreate(), s.VcpuCreate(1), s.VcpuCreate(1)),
    "creation beside one given up": _race(
        Config(),
        s.VmCreate(),
        s.VcpuCreate(0, abandoned=True),
        s.VcpuCreate(0),
    ),
    "two creations given up": _race(
        Config(), s.VmCreate(), s.VcpuCreate(0, abandoned=True), s.VcpuCreate(1, abandoned=True), switches=0
    ),
    "tag beside tag": _race(Config(next_tag=0xFFFFF), s.VmCreate(0), s.VmCreate(1)),
    "first vCPUs of two VMs": _race(
        Config(next_tag=0xFFFFFFFF), s.VmCreate(0), s.VmCreate(1), s.VcpuCreate(0, 0), s.VcpuCreate(0, 1), switches=0
    ),
    "creation beside a run": _race(Config(vcpus=(0,)), s.VcpuCreate(1), s.Enter(0)),
    "end of one VM beside creation in another": _race(
        Config(vcpus=(0,)),
        s.VmCreate(1),
        s.VcpuCreate(0, 1),
        s.VmDestroy(1),
        s.VcpuCreate(1),
    ),
    "creation beside an IPI to it": _race(RUNNING, s.VcpuCreate(2), s.GuestIpi(0, 2)),
    "creation beside an inhibit": _race(RUNNING, s.VcpuCreate(2), INHIBIT),
    "blocking beside an IPI": _race(RUNNING, s.Exit(1), s.Block(1), s.GuestIpi(0, 1)),
    "blocking beside a logical IPI": _race(RUNNING, s.Exit(1), s.Block(1), s.GuestIpi(0, 2, logical=True)),
    "blocking beside delivery": _race(RUNNING, s.Exit(1), s.Block(1), s.Deliver(1, 0x52)),
    "blocking beside a posted interrupt": _race(RUNNING, _POST, s.Exit(1), s.Block(1), s.IommuPost(0)),
    "blocking without IPI virtualization": _race(
        Config(vcpus=(0, 1), running=True, enabled=True, family=0x17, stale_running=True),
        s.Exit(1),
        s.Block(1),
        s.GuestIpi(0, 1),
    ),
    "blocking while inhibited": _race(RUNNING, *_INHIBITED, s.Exit(1), s.Block(1), s.GuestIpi(0, 1)),
    "waking beside an IPI": _race(RUNNING, *_SLEEPING, s.Unblock(1), s.GuestIpi(0, 1)),
    "waking beside delivery": _race(RUNNING, *_SLEEPING, s.Unblock(1), s.Deliver(1, 0x52)),
    "waking beside a posted interrupt": _race(RUNNING, _POST, *_SLEEPING, s.Unblock(1), s.IommuPost(0), switches=2),
    "sleeper put beside an IPI": _race(RUNNING, *_SLEEPING, s.Put(1), s.GuestIpi(0, 1)),
    "sleeper loaded beside an IPI": _race(RUNNING, *_SLEEPING, s.Put(1), s.Load(1, 0x31), s.GuestIpi(0, 1)),
    "put beside an IPI": _race(RUNNING, s.Put(1), s.GuestIpi(0, 1)),
    "load beside an IPI": _race(RUNNING, s.Put(1), s.Load(1, 0x31), s.GuestIpi(0, 1)),
    "put beside a posted interrupt": _race(RUNNING, _POST, s.Put(1), s.IommuPost(0), switches=2),
    "load beside a posted interrupt": _race(RUNNING, _POST, s.Put(1), s.Load(1, 0x31), s.IommuPost(0), switches=2),
    "put beside a new route": _race(RUNNING, s.Put(1), _POST, switches=2),
    "put beside a route away": _race(RUNNING, _POST, s.Put(1), s.UpdateIrte(0, 0)),
    "put beside the end of a route": _race(RUNNING, _POST, s.Put(1), s.UpdateIrte(0, -1), switches=2),
    "load beside a new route": _race(RUNNING, s.Put(1), s.Load(1, 0x31), _POST, switches=2),
    "load beside a route away": _race(RUNNING, _POST, s.Put(1), s.Load(1, 0x31), s.UpdateIrte(0, 0)),
    "blocking beside a new route": _race(RUNNING, s.Exit(1), s.Block(1), _POST),
    "blocking beside a route away": _race(RUNNING, _POST, s.Exit(1), s.Block(1), s.UpdateIrte(0, 0)),
    "waking beside a new route": _race(RUNNING, *_SLEEPING, s.Unblock(1), _POST),
    "inhibit beside a new route": _race(RUNNING, INHIBIT, _POST),
    "inhibit lifted beside a new route": _race(RUNNING, *_INHIBITED, _ALLOW, _POST),
    "inhibit beside delivery": _race(RUNNING, INHIBIT, s.Deliver(1, 0x52)),
    "inhibit beside an IPI": _race(RUNNING, INHIBIT, s.GuestIpi(0, 1)),
    "inhibit beside an IPI to a sleeper": _race(RUNNING, *_SLEEPING, INHIBIT, s.GuestIpi(0, 1)),
    "inhibit beside a posted interrupt": _race(RUNNING, _POST, INHIBIT, s.IommuPost(0)),
    "inhibit beside a load": _race(RUNNING, s.Put(1), INHIBIT, s.Load(1, 0x31)),
    "inhibit beside a put": _race(RUNNING, INHIBIT, s.Put(1)),
    "inhibit beside blocking": _race(RUNNING, s.Exit(1), INHIBIT, s.Block(1)),
    "inhibit beside entry": _race(RUNNING, s.Exit(1), INHIBIT, s.VmRun(1)),
    "inhibit beside reset": _race(RUNNING, s.Exit(1), INHIBIT, s.VcpuReset(1)),
    "inhibit lifted beside delivery": _race(RUNNING, *_INHIBITED, _ALLOW, s.Deliver(1, 0x52)),
    "inhibit lifted beside an IPI": _race(RUNNING, *_INHIBITED, _ALLOW, s.GuestIpi(0, 1)),
    "inhibit lifted beside entry": _race(RUNNING, *_INHIBITED, s.Exit(1), _ALLOW, s.VmRun(1)),
    "two inhibits": _race(RUNNING, INHIBIT, s.Inhibit(INHIBIT_IRQWIN, True)),
    "inhibit beside the end of another": _race(
        RUNNING,
        *_INHIBITED,
        _ALLOW,
        s.Inhibit(INHIBIT_IRQWIN, True),
    ),
    "foreign id beside delivery": _race(RUNNING, s.GuestWrite(0, APIC_ID, 0x05000000), s.Deliver(1, 0x52)),
    "foreign id beside an IPI": _race(RUNNING, s.GuestWrite(0, APIC_ID, 0x05000000), s.GuestIpi(1, 0)),
    "LDR beside an IPI to the old": _race(
        RUNNING, s.GuestWrite(0, APIC_LDR, 0x04000000), s.GuestIpi(1, 1, logical=True)
    ),
    "LDR beside an IPI to both": _race(RUNNING, s.GuestWrite(0, APIC_LDR, 0x04000000), s.GuestIpi(1, 5, logical=True)),
    "LDR beside an IPI to others": _race(
        RUNNING, s.GuestWrite(0, APIC_LDR, 0x04000000), s.GuestIpi(1, 7, logical=True)
    ),
    "LDR beside an IPI to the new": _race(
        RUNNING, s.GuestWrite(1, APIC_LDR, 0x04000000), s.GuestIpi(0, 4, logical=True)
    ),
    "LDR beside LDR": _race(RUNNING, s.GuestWrite(0, APIC_LDR, 0x04000000), s.GuestWrite(1, APIC_LDR, 0x04000000)),
    "DFR beside an IPI": _race(RUNNING, s.GuestWrite(0, APIC_DFR, CLUSTER), s.GuestIpi(1, 3, logical=True)),
    "software disabled beside an IPI": _race(RUNNING, s.GuestWrite(0, APIC_SPIV, 0xFF), s.GuestIpi(1, 0)),
    "delivery beside an IPI": _race(RUNNING, s.Deliver(1, 0x52), s.GuestIpi(0, 1), switches=2),
    "delivery beside an IPI of its vector": _race(RUNNING, s.Deliver(1, 0x41), s.GuestIpi(0, 1), switches=2),
    "delivery beside delivery": _race(RUNNING, s.Exit(1), s.Deliver(1, 0x41), s.Deliver(1, 0x52, level=True)),
    "delivery beside a posted interrupt": _race(
        RUNNING, _POST, s.Put(1), s.Deliver(1, 0x52), s.IommuPost(0), switches=2
    ),
    "delivery beside an EOI": _race(RUNNING, s.Deliver(1, 0x41, level=True), s.GuestEoi(1), s.Deliver(1, 0x52)),
    "delivery beside the EOI of its vector": _race(
        RUNNING, s.Deliver(1, 0x41, level=True), s.GuestEoi(1), s.Deliver(1, 0x41)
    ),
    "entry beside delivery": _race(RUNNING, s.Exit(1), s.VmRun(1), s.Deliver(1, 0x52)),
    "entry beside an IPI": _race(RUNNING, s.Exit(1), s.VmRun(1), s.GuestIpi(0, 1), switches=2),
    "entry beside delivery while inhibited": _race(
        RUNNING, *_INHIBITED, s.Exit(1), s.Deliver(1, 0x41), s.VmRun(1), s.Deliver(1, 0x52)
    ),
    "EOI beside delivery while inhibited": _race(
        RUNNING, *_INHIBITED, s.Deliver(1, 0x41), s.GuestEoi(1), s.Deliver(1, 0x52)
    ),
    "IPI beside IPI": _race(THREE, s.GuestIpi(0, 2), s.GuestIpi(1, 2, vector=0x52), switches=2),
    "IPI beside IPI of its vector": _race(THREE, s.GuestIpi(0, 2), s.GuestIpi(1, 2), switches=2),
    "end beside a posted interrupt": _race(
        Config(vcpus=(0,), running=True, enabled=True),
        s.UpdateIrte(0, 0),
        s.Exit(0),
        s.Block(0),
        s.VmDestroy(),
        s.IommuPost(0),
    ),
    "end beside a log entry": _race(
        Config(vcpus=(0,), running=True, enabled=True), s.Exit(0), s.Block(0), s.VmDestroy(), s.GaLogNotify(0)
    ),
    "x2AVIC: blocking beside an IPI": _race(X2, s.Exit(17), s.Block(17), s.GuestIpi(0, 17)),
    "x2AVIC: blocking beside a logical IPI": _race(X2, s.Exit(17), s.Block(17), s.GuestIpi(0, 0x10002, logical=True)),
    "x2AVIC: inhibit beside an IPI": _race(X2, INHIBIT, s.GuestIpi(0, 1), switches=0),
}
"""Two operations at once, from the states in which their order matters to a driver (facts 4.6)."""


STARTS: tuple[tuple[Config, tuple[Step, ...]], ...] = (
    (Config(), steps(s.VmCreate())),
    (RUNNING, steps(_POST, s.Exit(1))),
    (RUNNING, steps(*_INHIBITED, s.Exit(1))),
    (RUNNING, steps(_POST, *_SLEEPING)),
    (RUNNING, steps(_POST, s.Put(1))),
    (RUNNING, ()),
    (RUNNING, steps(*_INHIBITED, s.Deliver(1))),
    (Config(next_tag=0xFFFFF), ()),
    (Config(next_tag=0xFFFFFFFF), steps(s.VmCreate(0), s.VmCreate(1))),
    (Config(vcpus=(0,)), ()),
    (Config(vcpus=(0,), running=True, enabled=True), steps(s.UpdateIrte(0, 0), s.Exit(0), s.Block(0))),
    (THREE, steps(s.Exit(1), s.Block(1), s.Exit(2))),
    (X2, steps(s.Exit(17))),
    (Config(vcpus=(0, 1), running=True, enabled=True, family=0x17, stale_running=True), steps(s.Exit(1))),
    (Config(vcpus=(0, 1, 17), running=True, enabled=True, x2apic=True), steps(s.Exit(1))),
)
"""Where two operations meet, most telling first."""
