"""Steps in the lives of VMs and vCPUs: creation, failure, tags, ids, the end."""

from __future__ import annotations

from conformance.model.avic import operations as o
from conformance.model.step import Parallel, Step
from conformance.specs.avic.constants import APIC_LDR, APIC_TPR, ENOMEM, INHIBIT_BLOCKIRQ
from conformance.strategies.avic.domains import faulty, steps

_FAILURES = (
    ("alloc_page", -ENOMEM, 1),
    ("alloc_page", -ENOMEM, 2),
    ("alloc_page", -ENOMEM, 3),
    ("kzalloc", -ENOMEM, 1),
    ("alloc_vmcb", -ENOMEM, 1),
    ("set_memory_region", -ENOMEM, 1),
    ("set_memory_region", -ENOMEM, 2),
    ("gfn_to_page", -ENOMEM, 1),
    ("gfn_to_page", -ENOMEM, 2),
)

LIFECYCLE = (
    *steps(
        o.HwUnsetup(),
        o.VmCreate(),
        o.VmCreate(abandoned=True),
        o.VcpuCreate(0),
        o.VcpuCreate(1),
        o.VcpuCreate(255),
        o.VcpuCreate(1, abandoned=True),
        o.VcpuFree(0),
        o.VcpuFree(1),
        o.VcpuReset(0),
        o.VcpuReset(0, init=True),
        o.VmcbReinit(0),
        o.Enter(0),
        o.Enter(0, tpr=0x20),
        o.Enter(1),
        o.SetLapic(0, tpr=0x20),
        o.GetLapic(0, APIC_TPR),
        o.MemoryPressure(),
        o.GuestStore(1),
        o.UserStore(0),
        o.HwapicUpdate(0),
        o.VmDestroy(),
    ),
    *faulty(o.VmCreate(), *_FAILURES[:4]),
    *faulty(o.VcpuCreate(0), *_FAILURES),
    *faulty(o.VcpuCreate(1), *_FAILURES),
)


_HALVES = tuple(range(0, 40, 3))


_PARALLEL = tuple(
    Step(Parallel(Step(left), Step(right), (a, b)))
    for left, right in (
        (o.VcpuCreate(0), o.VcpuCreate(1)),
        (o.VcpuCreate(1), o.VcpuCreate(1)),
        (o.VcpuCreate(0, abandoned=True), o.VcpuCreate(1, abandoned=True)),
    )
    for a in _HALVES
    for b in _HALVES
    if a < b
)
FAILING = (
    *steps(o.VmCreate()),
    *faulty(o.VcpuCreate(0), ("alloc_page", -ENOMEM, 1), ("alloc_vmcb", -ENOMEM, 1), ("set_memory_region", -ENOMEM, 1)),
    *steps(o.VmDestroy(), o.VcpuCreate(1)),
)
CREATING = (*steps(o.VmCreate(), o.VmDestroy(), o.VcpuCreate(2)), *_PARALLEL)
TAGS = (
    *steps(*(op(vm) for vm in (0, 1) for op in (o.VmCreate, o.VmTag, o.VmDestroy))),
    *steps(o.VcpuCreate(0, 0), o.VcpuCreate(0, 1)),
    *(
        Step(Parallel(Step(o.VmCreate(0)), Step(o.VmCreate(1)), (a, b)))
        for a in range(0, 16, 2)
        for b in range(16, 24, 4)
    ),
    *(
        Step(Parallel(Step(o.VcpuCreate(0, 0)), Step(o.VcpuCreate(0, 1)), (a, b)))
        for a in range(0, 24, 2)
        for b in range(24, 40, 8)
    ),
)
TWO_VMS = (
    *steps(
        o.VmCreate(1),
        o.VcpuCreate(0, 1),
        o.VcpuCreate(1, 1),
        o.VcpuCreate(255, 1),
        *(o.Enter(i, tpr, vm=1) for i, tpr in ((0, -1), (1, 0x20), (255, -1))),
        o.VcpuFree(0, 1),
        o.VmDestroy(1),
        o.Inhibit(INHIBIT_BLOCKIRQ, True),
        o.GuestIpi(0, 0xFF),
        o.UpdateIrte(0, 1),
        o.Exit(1),
        o.Block(1),
        o.IommuPost(0),
    ),
)
PASSING_TAGS = steps(o.VmCreate(0), o.VmCreate(1), o.VmDestroy(1), *(o.TagsPass(n) for n in (0, 1, 0xFFFFF)))
FREED = steps(
    *(o.GuestWrite(0, APIC_LDR, ldr << 24) for ldr in (4, 1)),
    *(op(i) for i in (1, 2) for op in (o.Put, o.VcpuFree, o.VcpuCreate)),
    o.GuestIpi(0, 6, logical=True),
    o.GuestIpi(0, 1),
    o.GuestIpi(0, 0, shorthand=3),
    o.Load(1, 0x21),
    o.VmRun(1),
    o.UpdateIrte(0, 1),
    o.IommuPost(0),
    o.Enter(1),
)
FIRST_TAGS = (
    *steps(o.VmCreate(0), o.VmCreate(1), o.VcpuCreate(0, 0), o.VcpuCreate(0, 1), o.VmTag(1)),
    *(Step(Parallel(Step(o.VmCreate(0)), Step(o.VmCreate(1)), (a,))) for a in (8, 10, 12)),
)
BIG = steps(
    o.VmCreate(),
    o.VmCreate(max_vcpu_ids=256),
    o.VmCreate(max_vcpu_ids=2),
    *(o.VcpuCreate(i) for i in (0, 1, 254, 255, 256, 300, 511, 512, 4095, 4096)),
    o.Enter(0),
    o.Enter(1),
    o.Enter(255),
    o.Enter(256),
    o.VmDestroy(),
)
