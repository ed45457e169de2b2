"""Steps in the lives of VMs and vCPUs: creation, failure, tags, ids, the end."""

from __future__ import annotations

from conformance.model.avic import operations as s
from conformance.model.step import Parallel, Step
from conformance.specs.avic.constants import APIC_LDR, APIC_TPR, BASE_BSP, ENOMEM, INHIBIT_BLOCKIRQ
from conformance.strategies.avic.domains import X2_ON, faulty, steps

X2_BASE = X2_ON | 1 << BASE_BSP

_FAILURES = (
    ("alloc_page", -ENOMEM, 1),
    ("alloc_page", -ENOMEM, 2),
    ("alloc_page", -ENOMEM, 3),
    ("kzalloc", -ENOMEM, 1),
    ("kzalloc", -ENOMEM, 2),
    ("alloc_vmcb", -ENOMEM, 1),
    ("set_memory_region", -ENOMEM, 1),
    ("set_memory_region", -ENOMEM, 2),
    ("gfn_to_page", -ENOMEM, 1),
    ("gfn_to_page", -ENOMEM, 2),
)

LIFECYCLE = (
    *steps(
        s.HwUnsetup(),
        s.VmCreate(),
        s.VmCreate(abandoned=True),
        s.VcpuCreate(0),
        s.VcpuCreate(1),
        s.VcpuCreate(255),
        s.VcpuCreate(1, abandoned=True),
        s.VcpuFree(0),
        s.VcpuFree(1),
        s.VcpuReset(0),
        s.VcpuReset(0, init=True),
        s.VmcbReinit(0),
        s.Enter(0),
        s.Enter(0, tpr=0x20),
        s.Enter(1),
        s.SetLapic(0, tpr=0x20),
        s.GetLapic(0, APIC_TPR),
        s.MemoryPressure(),
        s.GuestStore(1),
        s.UserStore(0),
        s.HwapicUpdate(0),
        s.VmDestroy(),
    ),
    *faulty(s.VmCreate(), *_FAILURES[:5]),
    *faulty(s.VcpuCreate(0), *_FAILURES),
    *faulty(s.VcpuCreate(1), *_FAILURES),
)


RELOADED = steps(
    s.HwSetup(),
    s.HwSetup(family=0x17),
    s.HwSetup(avic=0),
    s.VmCreate(),
    s.VcpuCreate(0),
    s.SetApicBase(0, X2_BASE, True),
    s.Load(0, 0x20),
    s.VmRun(0),
    s.Deliver(0),
)
"""The module loaded anew where there is less than it found before, and a vCPU that would use it."""


_HALVES = tuple(range(0, 40, 3))


_PARALLEL = tuple(
    Step(Parallel(Step(left), Step(right), (a, b)))
    for left, right in (
        (s.VcpuCreate(0), s.VcpuCreate(1)),
        (s.VcpuCreate(1), s.VcpuCreate(1)),
        (s.VcpuCreate(0, abandoned=True), s.VcpuCreate(1, abandoned=True)),
    )
    for a in _HALVES
    for b in _HALVES
    if a < b
)
FAILING = (
    *steps(s.VmCreate()),
    *faulty(s.VcpuCreate(0), ("alloc_page", -ENOMEM, 1), ("alloc_vmcb", -ENOMEM, 1), ("set_memory_region", -ENOMEM, 1)),
    *steps(s.VmDestroy(), s.VcpuCreate(1)),
)
CREATING = (*steps(s.VmCreate(), s.VmDestroy(), s.VcpuCreate(2)), *_PARALLEL)
TAGS = (
    *steps(*(op(vm) for vm in (0, 1) for op in (s.VmCreate, s.VmTag, s.VmDestroy))),
    *steps(s.VcpuCreate(0, 0), s.VcpuCreate(0, 1)),
    *(
        Step(Parallel(Step(s.VmCreate(0)), Step(s.VmCreate(1)), (a, b)))
        for a in range(0, 16, 2)
        for b in range(16, 24, 4)
    ),
    *(
        Step(Parallel(Step(s.VcpuCreate(0, 0)), Step(s.VcpuCreate(0, 1)), (a, b)))
        for a in range(0, 24, 2)
        for b in range(24, 40, 8)
    ),
)
TWO_VMS = (
    *steps(
        s.VmCreate(1),
        s.VcpuCreate(0, 1),
        s.VcpuCreate(1, 1),
        s.VcpuCreate(255, 1),
        *(s.Enter(i, tpr, vm=1) for i, tpr in ((0, -1), (1, 0x20), (255, -1))),
        s.VcpuFree(0, 1),
        s.VmDestroy(1),
        s.Inhibit(INHIBIT_BLOCKIRQ, True),
        s.GuestIpi(0, 0xFF),
        s.UpdateIrte(0, 1),
        s.Exit(1),
        s.Block(1),
        s.IommuPost(0),
    ),
)
PASSING_TAGS = steps(s.VmCreate(0), s.VmCreate(1), s.VmDestroy(1), *(s.TagsPass(n) for n in (0, 1, 0xFFFFF)))
COMING_ROUND = steps(s.VmCreate(1), s.VmDestroy(1), s.VcpuCreate(0, 1), *(s.TagsPass(n) for n in (0, 1, 0xFFFFF)))
"""Beside a VM that has a vCPU, and so a tag in every driver."""
FREED = steps(
    *(s.GuestWrite(0, APIC_LDR, ldr << 24) for ldr in (4, 1)),
    *(op(i) for i in (1, 2) for op in (s.Put, s.VcpuFree, s.VcpuCreate)),
    s.GuestIpi(0, 6, logical=True),
    s.GuestIpi(0, 1),
    s.GuestIpi(0, 0, shorthand=3),
    s.Load(1, 0x21),
    s.VmRun(1),
    s.UpdateIrte(0, 1),
    s.IommuPost(0),
    s.Enter(1),
)
FIRST_TAGS = (
    *steps(s.VmCreate(0), s.VmCreate(1), s.VcpuCreate(0, 0), s.VcpuCreate(0, 1), s.VmTag(1)),
    *(Step(Parallel(Step(s.VmCreate(0)), Step(s.VmCreate(1)), (a,))) for a in (8, 10, 12)),
)
BIG = steps(
    s.VmCreate(),
    s.VmCreate(max_vcpu_ids=256),
    s.VmCreate(max_vcpu_ids=2),
    s.VmCreate(max_vcpu_ids=513),
    *(s.VcpuCreate(i) for i in (0, 1, 254, 255, 256, 300, 511, 512, 4095, 4096)),
    s.Enter(0),
    s.Enter(1),
    s.Enter(255),
    s.Enter(256),
    s.VmDestroy(),
)
