"""The acts of scripts on the TDP MMU of a kernel in a guest: memory of either size of page, entries of its tables."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

from conformance.model.tdp_mirror.operations import VcpuCreate
from conformance.real import kvm_requests as r
from conformance.real.guest.bench import GuestBench
from conformance.real.guest.channel import call, within
from conformance.real.guest.kvm import COUNTERS, mapping
from conformance.real.guest.packages import Kernel
from conformance.real.linux_tdpmmu.world import (
    ADDRESS,
    CODE_GPA,
    DONTNEED,
    HUGEPAGE,
    LARGE,
    NCR3,
    NOHUGEPAGE,
    OTHER_GPA,
    PRESENT,
    WRITE,
    TdpWorld,
    huge_pages,
)
from conformance.real.scripts import act

_BIG = 2 << 20
_MARKS = {"writable": 1, "user": 2, "accessed": 5, "dirty": 6, "no execute": 63}
"""Bits of an entry."""
_STORE_AT = COUNTERS + 0x900
_STORE = b"\x88\x04\xe6\x10"
"""mov [si], al; out."""
_PREFAULT_PATIENCE = 2.0


class TdpBench(GuestBench):
    """One VM whose slots are what scripts make them."""

    world: TdpWorld

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self.memory_at = 0

    @act
    def vm(self) -> int:
        """KVM_CREATE_VM, with a slot far up for the code of its guests."""
        from conformance.real.linux_tdpmmu.adapter import PLAIN

        world = self.enter(TdpWorld(self.kernel, replace(PLAIN, slots=()), prefaults=False))
        self.channel.must(f"w {world.kvm.memory + _STORE_AT} {_STORE.hex()}")
        return 0

    @act
    def check_extension(self, cap: int) -> int:
        """KVM_CHECK_EXTENSION."""
        return self.channel.one(call("ioctl", self.world.kvm.fd, r.CHECK_EXTENSION, cap)).value

    @act
    def create_vm(self, kind: int) -> int:
        """KVM_CREATE_VM of another type, which is closed again: 0 or the errno."""
        made = self.channel.one(call("ioctl", self.world.kvm.fd, r.CREATE_VM, kind)).value
        if made >= 0:
            self.channel.one(call("close", made))
        return min(made, 0)

    @act
    def create_vcpu(self, vcpu: int) -> int:
        """KVM_CREATE_VCPU."""
        return self.world.vcpu_create(VcpuCreate(vcpu))

    @act
    def memory(self, size: int, huge: bool = False) -> int:
        """Anonymous memory, aligned to 2 MiB, of huge pages or of none, each page written."""
        if huge:  # which kernels of small machines turn off
            self.channel.must(huge_pages("madvise"))
            self.given.callback(self.channel.one, huge_pages("never"))
        whole = size + _BIG
        start = self.channel.must(mapping(whole, 0x22, 2**64 - 1))
        self.given.callback(self.channel.one, call("munmap", start, whole))
        self.memory_at = (start + _BIG - 1) // _BIG * _BIG
        self.channel.must(call("madvise", self.memory_at, size, HUGEPAGE if huge else NOHUGEPAGE))
        step = _BIG if huge else 4096
        self.channel.must_all([f"p {self.memory_at + at} {at + 1}" for at in range(0, size, step)])
        return 0

    @act
    def set_region(self, slot: int, gpa: int, size: int, offset: int = 0, flags: int = 0) -> int:
        """KVM_SET_USER_MEMORY_REGION over the memory; size 0 deletes, flag 1 logs what is dirty."""
        return self.world.region(slot, gpa, size, self.memory_at + offset, flags)

    @act
    def get_dirty_log(self, slot: int, pages: int) -> list[int]:
        """KVM_GET_DIRTY_LOG: the numbers of the dirty pages, or the errno."""
        size, at = (pages + 63) // 64 * 8, self.world.memory  # which no slot of a script shows
        argument = struct.pack("<IIQ", slot, 0, at)
        _, answer, content = self.channel.ask([
            f"w {at} {bytes(size).hex()}", call("ioctl", self.world.vm, r.GET_DIRTY_LOG, argument), f"r {at} {size}",
        ])  # fmt: skip
        if answer.value:
            return [answer.value]
        return [n for n in range(pages) if content.data[0][n // 8] >> n % 8 & 1]

    @act
    def pre_fault_memory(self, vcpu: int, gpa: int, size: int) -> list[int]:
        """KVM_PRE_FAULT_MEMORY: the result, and gpa and size as the kernel left them."""
        line = call("ioctl", self.world.vcpus[vcpu].fd, r.PRE_FAULT_MEMORY, struct.pack("<QQQ40x", gpa, size, 0))
        answer = self.channel.ask(within(_PREFAULT_PATIENCE, line))[1]
        return [answer.value, *struct.unpack_from("<QQ", answer.data[0])]

    @act
    def store(self, vcpu: int, gpa: int) -> int:
        """The guest stores a byte: the reason of its exit, 2 once it is done, 6 where there is no memory."""
        return self.world.vcpus[vcpu].run_at(CODE_GPA, _STORE_AT, gpa)

    @act
    def give_back(self, offset: int, size: int) -> int:
        """madvise(DONTNEED) of a part of the memory."""
        return self.channel.one(call("madvise", self.memory_at + offset, size, DONTNEED)).value

    # -- tables

    def _root(self, vcpu: int) -> int:
        return self.world.vcpus[vcpu].read(NCR3) & ADDRESS

    @act
    def root(self, vcpu: int) -> int:
        """nCR3 of the VMCB."""
        return self._root(vcpu)

    @act
    def entries(self, table: int) -> list[int]:
        """How many entries of a table are present, and the values of those that are not, each once."""
        found = struct.unpack_from("<512Q", self.world.guest.ram, table)
        absent = sorted({entry for entry in found if not entry & PRESENT})
        return [sum(entry & PRESENT for entry in found), *absent]

    @act
    def absent_below(self, vcpu: int) -> list[int]:
        """The values of the entries that are not present, in all tables below the root, each once."""
        found = {entry for entry, *_ in self._walk(self._root(vcpu), 4, 0) if not entry & PRESENT}
        return sorted(found)

    @act
    def leaf(self, vcpu: int, gpa: int) -> list[str | int]:
        """The level of the leaf that maps an address, and its bits by name; nothing where none does."""
        for entry, level, gfn in self._walk(self._root(vcpu), 4, 0):
            size = 1 << 9 * (level - 1)
            if entry & PRESENT and (level == 1 or entry & LARGE) and gfn <= gpa >> 12 < gfn + size:
                marks = " ".join(name for name, bit in _MARKS.items() if entry >> bit & 1)
                return [level, marks]
        return []

    @act
    def leaves(self, vcpu: int, level: int, writable: bool | None = None) -> int:
        """How many leaves there are of a level, that can be written or not; but for those of the code."""
        wanted = [
            entry
            for entry, found, gfn in self._walk(self._root(vcpu), 4, 0)
            if found == level and gfn << 12 < OTHER_GPA and entry & PRESENT and (level == 1 or entry & LARGE)
        ]
        return sum(writable is None or bool(entry & WRITE) == writable for entry in wanted)

    def _walk(self, table: int, level: int, base: int) -> Iterator[tuple[int, int, int]]:
        """Entry, level and gfn of each entry that does not lead to another table."""
        for index, entry in enumerate(struct.unpack_from("<512Q", self.world.guest.ram, table)):
            gfn = base + (index << 9 * (level - 1))
            if entry & PRESENT and level > 1 and not entry & LARGE:
                yield from self._walk(entry & ADDRESS, level - 1, gfn)
            else:
                yield entry, level, gfn
