"""One VM without private memory; its leaves are read from the guest's memory, root and all."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar

from conformance.model.tdp_mirror import Config, View
from conformance.model.tdp_mirror.operations import (
    HvaInvalidate,
    Prefault,
    SlotCreate,
    VcpuCreate,
    WrprotSlot,
    ZapAllFast,
)
from conformance.model.tdp_mirror.state import HVA_SOURCES, Leaf
from conformance.real import kvm_requests as r
from conformance.real.guest.channel import O_RDONLY, call, opening, storing, within
from conformance.real.guest.kvm import COUNTERS, Kvm, Vcpu, mapping, started
from conformance.real.guest.packages import Kernel
from conformance.real.guest.world import GuestWorld
from conformance.specs.tdp_mirror.constants import ENOENT, MEM_LOG_DIRTY_PAGES

NCR3 = 0xB0
PRESENT, WRITE, LARGE = 1, 2, 1 << 7
_MMIO = 1 << 51
"""Reserved where addresses are shorter: such an entry says that there is no memory."""
ADDRESS = (1 << 51) - 4096
DONTNEED, NOHUGEPAGE = 4, 15
_OTHER_SLOT, _CODE_SLOT = 30, 31
OTHER_GPA, CODE_GPA = 0x6000_0000, 0x7000_0000
_READ = b"\x8a\x04\xe6\x10"
"""mov al, [si]; out."""
_READ_AT = COUNTERS + 0x800
_PATIENCE = 0.5
"""Seconds after which a prefault of one page is hopeless."""
PAGES, HUGE_PAGES = 64, 1024
"""Of memory that slots are made from, gfn n is page n; of that which is huge pages of 2 MiB."""
BLOCK = 512
"""Pages of a huge one."""
HUGEPAGE = 14
_WHEN_ASKED = "/sys/kernel/mm/transparent_hugepage/enabled"
"""Kernels of small machines turn huge pages off."""


def huge_pages(when: str) -> str:
    """The request that says when memory is of huge pages: `madvise`, or `never`."""
    return storing(_WHEN_ASKED, when.encode())


class TdpWorld(GuestWorld):
    """A VM, its vCPUs and its slots."""

    def __init__(self, kernel: Kernel, config: Config, *, prefaults: bool, leave_out_zap: bool = False) -> None:
        super().__init__(partial(started, kernel))
        self.config = config
        self.prefaults = prefaults
        """Whether KVM_PRE_FAULT_MEMORY is used; else the guest reads."""
        self.leave_out_zap = leave_out_zap
        """For tests: the host takes no pages back."""

    def set_up(self) -> None:
        """The VM, its memory and its slots."""
        self.kvm = kvm = Kvm(self.guest)
        self.vm = kvm.create_vm(memory=False)
        self.pages = HUGE_PAGES if self.config.huge else PAGES
        self._map(huge=self.config.huge)
        self.moves = [0] * self.pages
        """How often the host took back each page, while it was behind a slot."""
        self._touch(0, self.pages)
        self.vcpus: dict[int, Vcpu] = {}
        self.slots: dict[int, tuple[int, int]] = {}
        for slot, base, npages, _flags in self.config.slots:
            self.slot_create(SlotCreate(slot, base, npages))
        if not self.prefaults:
            self.channel.one(f"w {kvm.memory + _READ_AT} {_READ.hex()}")
            self.region(_CODE_SLOT, CODE_GPA, 0x10000, kvm.memory)

    def _map(self, *, huge: bool) -> None:
        """Map the memory, which begins where a huge page can."""
        self.mapped = (self.pages + (BLOCK if huge else 0)) * 4096
        start, pagemap = self.channel.must_all([
            mapping(self.mapped, 0x22, 2**64 - 1), opening("/proc/self/pagemap", O_RDONLY)
        ])  # fmt: skip
        self.mapped_at, self.pagemap = start.value, pagemap.value
        self.memory = (self.mapped_at + BLOCK * 4096 - 1) // (BLOCK * 4096) * (BLOCK * 4096) if huge else self.mapped_at
        advised = call("madvise", self.memory, self.pages * 4096, HUGEPAGE if huge else NOHUGEPAGE)
        self.channel.must_all([*([huge_pages("madvise")] if huge else []), advised])

    def has_prefault(self) -> bool:
        """Whether there is KVM_PRE_FAULT_MEMORY."""
        return self.channel.one(call("ioctl", self.kvm.fd, r.CHECK_EXTENSION, r.CAP_PRE_FAULT_MEMORY)).value > 0

    def _touch(self, start: int, end: int) -> None:
        """Let each page be there, and be written."""
        step = BLOCK if self.config.huge else 1
        self.channel.ask([f"p {self.memory + 4096 * n} {n + 1}" for n in range(start, end, step)])

    def region(self, slot: int, gpa: int, size: int, address: int, flags: int = 0) -> int:
        """KVM_SET_USER_MEMORY_REGION."""
        argument = r.MEMORY.pack(slot, flags, gpa, size, address)
        return self.channel.one(call("ioctl", self.vm, r.SET_USER_MEMORY_REGION, argument)).value

    # -- operations

    def vcpu_create(self, op: VcpuCreate) -> int:
        """A vCPU."""
        vcpu = Vcpu(self.kvm, self.vm, op.vcpu)
        result = vcpu.create()
        if result == 0:
            self.vcpus[op.vcpu] = vcpu
        return result

    def prefault(self, op: Prefault) -> int:
        """KVM_PRE_FAULT_MEMORY, which a signal ends if nothing else does; where there is none, the guest reads."""
        if not self.prefaults:
            return self._read(op)
        argument = struct.pack("<QQQ40x", op.gpa, op.size, op.flags)
        line = call("ioctl", self.vcpus[op.vcpu].fd, r.PRE_FAULT_MEMORY, argument)
        answer = self.channel.ask(within(_PATIENCE, line))[1]
        if answer.value:
            return answer.value
        return op.size - int(struct.unpack_from("<Q", answer.data[0], 8)[0])

    def _read(self, op: Prefault) -> int:
        exit_reason = self.vcpus[op.vcpu].run_at(CODE_GPA, _READ_AT, op.gpa)
        return {r.EXIT_IO: 4096, r.EXIT_MMIO: -ENOENT}.get(exit_reason, -exit_reason)

    def slot_create(self, op: SlotCreate) -> int:
        """A slot over the pages of its gfns."""
        address = self.memory + 4096 * op.base
        result = self.region(op.slot, op.base << 12, op.npages << 12, address, op.flags)
        if result == 0:
            self.slots[op.slot] = (op.base, op.npages)
        return result

    def wrprot_slot(self, op: WrprotSlot) -> int:
        """Begin and end dirty logging of the slot."""
        base, npages = self.slots[op.slot]
        where = (op.slot, base << 12, npages << 12, self.memory + 4096 * base)
        results = [self.region(*where, flags) for flags in (MEM_LOG_DIRTY_PAGES, 0)]
        return min(results)

    def hva_invalidate(self, op: HvaInvalidate) -> int:
        """The host takes pages back; others are there at once."""
        start, end = min(op.start, self.pages), min(op.end, self.pages)
        if start < end and not self.leave_out_zap:
            self.channel.one(call("madvise", self.memory + 4096 * start, 4096 * (end - start), DONTNEED))
            self._touch(start, end)
        behind = {gfn for base, npages in self.slots.values() for gfn in range(base, base + npages)}
        for gfn in behind & set(range(start, end)):
            self.moves[gfn] += 1
        return 0

    def zap_all_fast(self, _op: ZapAllFast) -> int:
        """What the deletion of any slot does in a VM without private memory."""
        address = self.kvm.memory
        return min(self.region(_OTHER_SLOT, OTHER_GPA, size, address) for size in (0x1000, 0))

    OPERATIONS: ClassVar[Mapping[type, Callable[[Any, Any], Any]]] = {
        VcpuCreate: vcpu_create,
        Prefault: prefault,
        SlotCreate: slot_create,
        WrprotSlot: wrprot_slot,
        HvaInvalidate: hva_invalidate,
        ZapAllFast: zap_all_fast,
    }

    # -- looking

    def look(self) -> Any:
        """The leaves of the direct root that the vCPUs have; what was zapped with its root has none."""
        found = self.leaves()
        frames = self._frames([gfn for gfn, *_ in found])
        leaves: set[Leaf] = set()
        for gfn, level, frame, writable in found:
            is_own = gfn < self.pages and frames[gfn] == frame
            leaves.add((gfn, level, HVA_SOURCES[self.moves[gfn] % 2] if is_own else "another page", writable))
        hidden: dict[str, Any] = dict.fromkeys(View._fields)
        return View(**{**hidden, "shared": frozenset(leaves)})

    def leaves(self) -> list[tuple[int, int, int, bool]]:
        """gfn, level, frame, writable of each leaf below the roots of all vCPUs."""
        roots = {vcpu.read(NCR3) & ADDRESS for vcpu in self.vcpus.values()} - {0}
        return list(dict.fromkeys(leaf for root in sorted(roots) for leaf in self._walk(root, 4, 0)))

    def _walk(self, table: int, level: int, base: int) -> Iterator[tuple[int, int, int, bool]]:
        """gfn, level, frame, writable of each leaf below a table, but for the code's."""
        entries = struct.unpack_from("<512Q", self.guest.ram, table)
        for index, entry in enumerate(entries):
            if not entry & PRESENT or entry & _MMIO:
                continue
            gfn = base + (index << 9 * (level - 1))
            if gfn << 12 >= OTHER_GPA:
                continue
            if level == 1 or entry & LARGE:
                yield gfn, level, (entry & ADDRESS) >> 12, bool(entry & WRITE)
            else:
                yield from self._walk(entry & ADDRESS, level - 1, gfn)

    def _frames(self, gfns: list[int]) -> dict[int, int]:
        """The frame behind each page, as the guest's kernel tells."""
        wanted = [gfn for gfn in dict.fromkeys(gfns) if gfn < self.pages]
        if not wanted:
            return {}
        where = [(self.memory >> 12) + gfn for gfn in wanted]
        answers = self.channel.ask([call("pread", self.pagemap, bytes(8), 8, 8 * page) for page in where])
        return {
            gfn: struct.unpack("<Q", answer.data[0])[0] & ((1 << 55) - 1)
            for gfn, answer in zip(wanted, answers, strict=True)
        }

    def clean(self) -> None:
        """The VM and its memory."""
        lines = [line for vcpu in self.vcpus.values() for line in vcpu.closing()]
        lines += [call("close", self.vm), call("close", self.pagemap), call("munmap", self.mapped_at, self.mapped)]
        lines += [huge_pages("never")] if self.config.huge else []
        self.channel.ask([*lines, *self.kvm.closing()])
