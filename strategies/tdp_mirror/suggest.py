"""Steps that fit the state: faults that can succeed, conversions of what is mapped, an orderly end."""

from __future__ import annotations

from random import Random

from conformance.model.step import Fault, Step
from conformance.model.tdp_mirror import Config, State
from conformance.model.tdp_mirror.operations import (
    Access,
    Age,
    Finalize,
    GmemInvalidate,
    HkidRelease,
    HvaInvalidate,
    InitRegion,
    MmuReload,
    PageFault,
    SetAttributes,
    SlotCreate,
    VcpuCreate,
    VcpuDestroy,
    VmUninit,
    ZapAll,
)
from conformance.model.tdp_mirror.state import NONE
from conformance.specs.tdp_mirror import Profile
from conformance.specs.tdp_mirror.constants import ATTRIBUTE_PRIVATE, EBUSY, MEM_LOG_DIRTY_PAGES, MEM_READONLY


def opening(config: Config, _profile: Profile) -> tuple[Step, ...]:
    """One loaded vCPU; a deep TD with a first page, finalized."""
    steps = [Step(VcpuCreate(0)), Step(MmuReload(0))]
    if config.deep and not config.early:
        steps += [Step(InitRegion(0, 0)), Step(Finalize())]
    return tuple(steps)


def suggest(state: State, random: Random) -> Step | None:
    """Faults that can succeed, conversions of what is mapped, and an orderly end."""
    config = state.config
    draw = random.random()
    if not state.hkid or (not config.mirror and draw < 0.02):
        return _ending(state, random)
    if draw < 0.5:
        return _fitting_fault(state, random)
    if draw < 0.65:
        gfn = _some_gfn(state, random)
        new = 0 if gfn in state.attributes else ATTRIBUTE_PRIVATE
        return Step(SetAttributes(gfn << 12, 4096, new if config.private else 0))
    if draw < 0.8:
        gfn = _some_gfn(state, random)
        end = min(gfn + random.choice((1, 2, 512)), config.max_gfn + 1)
        if gfn < config.direct_bits:
            end = min(end, config.direct_bits)
        return Step(random.choice((HvaInvalidate, GmemInvalidate, Age))(gfn, end))
    if draw < 0.9 and state.roots:
        gfn = _some_gfn(state, random)
        write = random.random() < 0.5
        return Step(Access(random.randrange(config.vcpus), (gfn | config.direct_bits) << 12, write))
    if draw < 0.93:
        return Step(GmemInvalidate(0, config.max_gfn + 1))
    if draw >= 0.985 and state.slots:
        slot, base, npages, flags = random.choice(state.slots)
        return Step(SlotCreate(slot, base, npages, flags ^ random.choice((MEM_LOG_DIRTY_PAGES, MEM_READONLY))))
    if 0.95 <= draw < 0.96:
        return Step(HvaInvalidate(0, config.max_gfn + 1, False), (Fault("resched", random.randint(1, 2)),))
    return Step(HkidRelease()) if draw < 0.95 else None


def _ending(state: State, random: Random) -> Step:
    alive = [i for i, pair in enumerate(state.vcpus) if pair is not None]
    if alive and random.random() < 0.8:
        return Step(VcpuDestroy(random.choice(alive)))
    return Step(VmUninit()) if not alive else Step(ZapAll())


def _some_gfn(state: State, random: Random) -> int:
    if not state.slots:
        return 0
    _, base, npages, _ = random.choice(state.slots)
    return base + random.randrange(npages)


def _fitting_fault(state: State, random: Random) -> Step | None:
    config = state.config
    loaded = [i for i, pair in enumerate(state.vcpus) if pair is not None and pair[0] != NONE]
    if not loaded:
        return Step(MmuReload(random.randrange(config.vcpus)))
    vcpu = random.choice(loaded)
    gfn = _some_gfn(state, random)
    private = gfn in state.attributes
    gpa = (gfn if private else gfn | config.direct_bits) << 12
    faults: tuple[Fault, ...] = ()
    if random.random() < 0.1:
        faults = (Fault(random.choice(("ext_link", "ext_set")), -EBUSY, random.randint(1, 2)),)
    return Step(PageFault(vcpu, gpa, private, random.random() < 0.5, random.random() < 0.3), faults)
