"""Pairs of operations whose order the driver cannot choose, and the states in which they meet."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.step import Fault, Step
from conformance.model.uio_msi import Config
from conformance.model.uio_msi.operations import (
    FIRST_FD,
    Close,
    CloseFd,
    CompatIrqSet,
    ConfigIntx,
    IrqSet,
    Open,
    OtherInterrupt,
    Probe,
    RaiseVector,
    Remove,
    ReuseFd,
    SetIntx,
    Write,
)
from conformance.specs.uio_msi.constants import EBUSY, ENOMEM
from conformance.strategies.domain import Race
from conformance.strategies.uio_msi.domains import INTX, PLAIN, ZERO

MAPPING = (Probe(), Open(), IrqSet(0, FIRST_FD))

STARTS = (
    (PLAIN, tuple(Step(op) for op in (*MAPPING, IrqSet(1, FIRST_FD + 1)))),
    (INTX, tuple(Step(op) for op in MAPPING)),
    (Config(core_41=True), tuple(Step(op) for op in MAPPING)),
    (PLAIN, tuple(Step(op) for op in (*MAPPING, Open(), RaiseVector(1)))),
    (INTX, tuple(Step(op) for op in (*MAPPING, SetIntx(True), SetIntx(False)))),
    (Config(vectors=0, core_41=True), tuple(Step(op) for op in MAPPING)),
    (Config(core_41=True), (Step(Probe()),)),
)
"""(world, steps): the states in which two operations are run side by side, most telling first."""

_WORLD = Config(eventfds=ZERO[:2], handles=2, ceiling=4)
_INTX = Config(vectors=0, eventfds=ZERO[:2], handles=2, ceiling=4)
_OLD, _OLD_INTX = replace(_WORLD, core_41=True), replace(_INTX, core_41=True)
_BOUND = (Step(Probe()),)
_OPENED = (*_BOUND, Step(Open()))
_MAPPED = (*_OPENED, Step(IrqSet(0, FIRST_FD)))
_SHARED = (*_MAPPED, Step(Open()))
_ATTACH, _MOVE, _DETACH = Step(IrqSet(0, FIRST_FD)), Step(IrqSet(0, FIRST_FD + 1)), Step(IrqSet(0, -1))
_RAISED, _ASSERTED = Step(RaiseVector(0)), Step(SetIntx(level=True))
_REFUSED = Step(Open(), (Fault("pci_enable_msix", -ENOMEM),))
_CLEARS = Step(ConfigIntx(disable=False))
_CLOSE, _REMOVE, _WRITE = Step(Close()), Step(Remove()), Step(Write(1))
_BOTH = (*_MAPPED, Step(IrqSet(1, FIRST_FD + 1)))
_FAILS = Step(IrqSet(0, FIRST_FD + 1), (Fault("request_irq", -EBUSY),))
_UP = (*_MAPPED, _ASSERTED)

RACES: dict[str, Race] = {
    "set-raise": Race(_WORLD, _OPENED, _ATTACH, _RAISED),
    "replace-raise": Race(_WORLD, _MAPPED, _MOVE, _RAISED),
    "unset-raise": Race(_WORLD, _MAPPED, _DETACH, _RAISED),
    "set-set": Race(_WORLD, _OPENED, _ATTACH, _MOVE),
    "replace-unset": Race(_WORLD, _MAPPED, _MOVE, _DETACH),
    "set-release": Race(_WORLD, _SHARED, _MOVE, _CLOSE),
    "open-release": Race(_WORLD, _MAPPED, Step(Open()), _CLOSE),
    "open-open": Race(_WORLD, _BOUND, Step(Open()), Step(Open())),
    "open-open-refused": Race(_WORLD, _BOUND, _REFUSED, Step(Open())),
    "open-set": Race(_WORLD, _OPENED, Step(Open()), _ATTACH),
    "release-raise": Race(_WORLD, _MAPPED, _CLOSE, _RAISED),
    "remove-set": Race(_WORLD, _MAPPED, _REMOVE, _MOVE),
    "remove-open": Race(_WORLD, _MAPPED, _REMOVE, Step(Open())),
    "remove-release": Race(_WORLD, _MAPPED, _REMOVE, _CLOSE),
    "remove-raise": Race(_WORLD, _MAPPED, _REMOVE, _RAISED),
    "close-fd-set": Race(_WORLD, _OPENED, Step(CloseFd(FIRST_FD)), _ATTACH),
    "reuse-fd-set": Race(_WORLD, _OPENED, Step(ReuseFd(FIRST_FD)), _ATTACH),
    "set-intx": Race(_INTX, _OPENED, _ATTACH, _ASSERTED),
    "replace-intx": Race(_INTX, _MAPPED, _MOVE, _ASSERTED),
    "unset-intx": Race(_INTX, _MAPPED, _DETACH, _ASSERTED),
    "release-intx": Race(_INTX, _MAPPED, _CLOSE, _ASSERTED),
    "remove-intx": Race(_INTX, _MAPPED, _REMOVE, _ASSERTED),
    "write-intx": Race(_INTX, _MAPPED, _WRITE, _ASSERTED),
    "raise-raise": Race(_WORLD, _BOTH, _RAISED, Step(RaiseVector(1))),
    "compat-set": Race(_WORLD, _MAPPED, Step(CompatIrqSet(0, FIRST_FD)), _MOVE),
    "set-other-vector": Race(_WORLD, _MAPPED, _MOVE, Step(IrqSet(1, FIRST_FD))),
    "refused-raise": Race(_WORLD, _MAPPED, _FAILS, _RAISED),
    "replace-other": Race(_INTX, _UP, _MOVE, Step(OtherInterrupt())),
    "write-replace": Race(_INTX, _UP, _WRITE, _MOVE),
    "write-write": Race(_INTX, _UP, _WRITE, _WRITE),
    "config-set": Race(_INTX, _UP, _CLEARS, _MOVE),
    "config-unset": Race(_INTX, _UP, _CLEARS, _DETACH),
    "config-intx": Race(_INTX, _MAPPED, Step(ConfigIntx(disable=True)), _ASSERTED),
    "config-open": Race(_INTX, (*_BOUND, _ASSERTED), _CLEARS, Step(Open())),
    "open-intx": Race(_INTX, _BOUND, Step(Open()), _ASSERTED),
    "write-unset": Race(_INTX, _UP, _WRITE, _DETACH),
    "old-open-open": Race(_OLD, _BOUND, Step(Open()), Step(Open())),
    "old-open-open-refused": Race(_OLD, _BOUND, _REFUSED, Step(Open())),
    "old-open-release": Race(_OLD, _MAPPED, Step(Open()), _CLOSE),
    "old-release-release": Race(_OLD, _SHARED, _CLOSE, _CLOSE),
    "old-remove-set": Race(_OLD, _MAPPED, _REMOVE, _MOVE),
    "old-remove-open": Race(_OLD, _MAPPED, _REMOVE, Step(Open())),
    "old-remove-release": Race(_OLD, _MAPPED, _REMOVE, _CLOSE),
    "old-write-release": Race(_OLD_INTX, (*_UP, Step(Open())), _WRITE, _CLOSE),
    "old-write-remove": Race(_OLD_INTX, _UP, _WRITE, _REMOVE),
}
"""The pairs of threads of the race list, each in the plainest state in which they meet.

An ioctl keeps its file open, so it meets a release only through another handle; then that release is not
the last one, which must change nothing. The 6.x core excludes open, release and write from one another; where
the driver must do that itself, the world is that of the old core.

Schedules of up to two switches are all tried, in both orders of starting.
"""
