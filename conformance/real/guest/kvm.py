"""KVM inside a guest: VMs and vCPUs by ioctl through the helper, and their VMCBs in the guest's memory."""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass, field

from conformance.real import kvm_requests as r
from conformance.real.guest.channel import O_RDWR, Answer, Back, Channel, call, opening
from conformance.real.guest.machine import Guest, Machine, guest
from conformance.real.guest.packages import Kernel
from conformance.specs.avic.constants import VMCB_INT_CTL
from conformance.verdict import HarnessError

MP_STATE_RUNNABLE = 0
MEMORY = 0x10000
"""Bytes of memory of each VM, from address 0; all have the same."""
OUT_AT, SPIN_AT, COUNTERS = 0x1000, 0x2000, 0x3000
_OUT = b"\xe6\x10"
_SPIN = b"\xff\x04\xeb\xfc"
"""inc word [si]; jmp back."""
_FS_BASE = 0x448
"""In a VMCB."""
_V_INTR_MASKING = 24
"""Of int_ctl."""
_GETTING_THERE = 30_000
"""Milliseconds until a vCPU must be in its guest."""
_SREGS_CS, _SREGS_DS, _SREGS_FS = 0, 24, 3 * 24
_PAGE = 4096
_numbers = itertools.count(1)
"""Of vCPUs, so that none has the mark of one before it."""


def machine(kernel: Kernel, cpus: int) -> Machine:
    """A guest with AVIC forced on; of a family on which IPIs are virtualized."""
    return Machine(
        kernel=kernel, modules=("kvm_amd",), parameters="avic=1 force_avic=1", cpu="EPYC,+svm,family=25", cpus=cpus
    )


def started(kernel: Kernel, cpus: int = 1) -> Guest:
    """The guest of this process with so many processors; one, where vCPUs need none of their own."""
    return guest(machine(kernel, cpus), prepare=hold_vm)


def hold_vm(channel: Channel) -> None:
    """Make a VM that is never closed, so that no world's is the first or the last one.

    With these the kernel patches its own text (`preempt_notifier_key` in the scheduler, and what a local APIC that is
    disabled switches). QEMU's processors, each on its own thread, sometimes run the breakpoint of such a patch when it
    is long gone: "Oops: int3", and the kernel panics.
    """
    device = channel.must(opening("/dev/kvm", O_RDWR))
    vm = channel.must(call("ioctl", device, r.CREATE_VM, 0))
    channel.must(call("ioctl", vm, r.ENABLE_CAP, r.CAP.pack(r.CAP_SPLIT_IRQCHIP, 0, 24, 0, 0, 0)))
    channel.must(call("ioctl", vm, r.CREATE_VCPU, 0))


@dataclass(slots=True)
class Kvm:
    """/dev/kvm in the guest."""

    guest: Guest
    channel: Channel = field(init=False)
    fd: int = field(init=False)
    memory: int = field(init=False)
    """Where the memory of all VMs lies in the helper."""
    run_size: int = field(init=False)

    def __post_init__(self) -> None:
        self.channel = self.guest.channel
        opened, size, mapped, *_ = self.channel.must_all([
            opening("/dev/kvm", O_RDWR),
            call("ioctl", Back(1), r.GET_VCPU_MMAP_SIZE, 0),
            mapping(MEMORY, 0x21, 2**64 - 1),
            f"w {Back(1, OUT_AT)} {_OUT.hex()}",
            f"w {Back(2, SPIN_AT)} {_SPIN.hex()}",
            call("sched_setaffinity", 0, 8, struct.pack("<Q", 1)),
        ])  # fmt: skip
        self.fd, self.run_size, self.memory = opened.value, size.value, mapped.value

    def create_vm(self, *, irqchip: bool = True, memory: bool = True) -> int:
        """A VM with a local APIC in the kernel and the memory of all; its descriptor."""
        lines = [call("ioctl", self.fd, r.CREATE_VM, 0)]
        if irqchip:
            cap = r.CAP.pack(r.CAP_SPLIT_IRQCHIP, 0, 24, 0, 0, 0)
            lines.append(call("ioctl", Back(1), r.ENABLE_CAP, cap))
        if memory:
            region = r.MEMORY.pack(0, 0, 0, MEMORY, self.memory)
            lines.append(call("ioctl", Back(len(lines)), r.SET_USER_MEMORY_REGION, region))
        return self.channel.must_all(lines)[0].value

    def closing(self) -> list[str]:
        """The requests that give it back."""
        return [call("close", self.fd), call("munmap", self.memory, MEMORY)]


def mapping(size: int, flags: int, fd: int | Back) -> str:
    """The request that maps memory in the helper."""
    return call("mmap", 0, size, 3, flags, fd, 0)


@dataclass(slots=True)
class Vcpu:
    """A vCPU, and its VMCB."""

    kvm: Kvm
    vm: int
    """Descriptor of the VM."""
    id: int
    fd: int = -1
    vmcb: int = -1
    """Address in the guest's memory."""
    run: int = 0
    """Where its kvm_run lies in the helper."""
    thread: int = -1
    counter: int = 0
    apic: bytes = b""
    """Its local APIC as its creation left it."""
    sregs: bytearray = field(default_factory=bytearray)
    """As they were set last; guests of ours change none."""

    def create(self) -> int:
        """KVM_CREATE_VCPU: 0 or a negative errno.

        It starts at the beginning of memory; its VMCB is found by a number that nothing else holds.
        """
        number = next(_numbers)
        mark = 0x5EED_0000_0000 | number << 8 | 0x5A
        creating = call("ioctl", self.vm, r.CREATE_VCPU, self.id)
        lines = [creating]
        is_first = self.id == 0
        reset: bytes | None = self.kvm.guest.sregs.get(is_first)
        if reset is None:
            created, told = self.kvm.channel.ask([creating, call("ioctl", Back(1), r.GET_SREGS, bytes(312))])
            if created.value < 0:
                return created.value
            reset, self.fd, lines = told.data[0], created.value, []
            self.kvm.guest.sregs[is_first] = reset
        self.sregs = bytearray(reset)
        struct.pack_into("<QIH", self.sregs, _SREGS_CS, 0, 0xFFFF, 0)
        struct.pack_into("<Q", self.sregs, _SREGS_FS, mark)
        lines += [
            call("ioctl", self._fd(1, lines), r.SET_SREGS, bytes(self.sregs)),
            call("ioctl", self._fd(2, lines), r.SET_MP_STATE, struct.pack("<I", MP_STATE_RUNNABLE)),
            mapping(self.kvm.run_size, 1, self._fd(3, lines)),
            call("ioctl", self._fd(4, lines), r.GET_LAPIC, bytes(1024)),
        ]
        answers = self.kvm.channel.ask(lines)
        if self.fd < 0:
            if answers[0].value < 0:
                return answers[0].value
            self.fd = answers[0].value
        self.run, self.apic = answers[-2].value, answers[-1].data[0]
        self.counter = COUNTERS + 16 * (number % 64)
        self.vmcb = self._find(mark)
        return 0

    def _fd(self, ago: int, lines: list[str]) -> int | Back:
        """The descriptor, or the request that will have given it."""
        return Back(ago) if lines else self.fd

    def _find(self, mark: int) -> int:
        """The page that has the mark where a VMCB has FS.base; first where others have been: pages are given again."""
        known = self.kvm.guest.vmcbs
        ram = memoryview(self.kvm.guest.ram).cast("Q")
        try:
            found = [page for page in known if self._is_vmcb(ram, page, mark)]
            if not found:
                stride = ram[_FS_BASE // 8 :: _PAGE // 8].tolist()
                found = [n for n, value in enumerate(stride) if value == mark and self._is_vmcb(ram, n, mark)]
        finally:
            ram.release()
        if len(found) != 1:
            raise HarnessError(f"{len(found)} VMCBs have the mark of a vCPU")
        known[found[0]] = None
        return found[0] * _PAGE

    def _is_vmcb(self, ram: memoryview[int], page: int, mark: int) -> bool:
        """V_INTR_MASKING is on in all of KVM's, and in no other page that has the mark there."""
        at = page * _PAGE
        return ram[(at + _FS_BASE) // 8] == mark and bool(ram[(at + VMCB_INT_CTL) // 8] >> _V_INTR_MASKING & 1)

    def ask(self, request: int, argument: bytes) -> Answer:
        """An ioctl of the vCPU."""
        return self.kvm.channel.one(call("ioctl", self.fd, request, argument))

    def read(self, offset: int, form: str = "<Q") -> int:
        """A field of the VMCB."""
        return int(struct.unpack_from(form, self.kvm.guest.ram, self.vmcb + offset)[0])

    def _at(self, rip: int, rsi: int) -> str:
        """The request that lets it go on there."""
        registers = [0] * 18
        registers[4], registers[16], registers[17] = rsi, rip, 2
        return call("ioctl", self.fd, r.SET_REGS, struct.pack("<18Q", *registers))

    def _until_exit(self) -> list[str]:
        """KVM_RUN, the reason of its exit, and what lets KVM complete the instruction."""
        run = call("ioctl", self.fd, r.RUN, 0)
        return [run, f"l {self.run + r.EXIT_REASON}", f"p {self.run} 256", run, f"p {self.run} 0"]

    def visit(self) -> int:
        """Run one instruction that ends with an exit to user space, and let KVM complete it. 0 or a negative errno."""
        return self.kvm.channel.ask([self._at(OUT_AT, 0), *self._until_exit()])[1].value

    def run_at(self, code: int, rip: int, data: int) -> int:
        """Run code at some base, with data at another, until the first exit; its reason, or a negative errno."""
        struct.pack_into("<Q", self.sregs, _SREGS_CS, code)
        struct.pack_into("<Q", self.sregs, _SREGS_DS, data)
        placed = call("ioctl", self.fd, r.SET_SREGS, bytes(self.sregs))
        _, _, run, reason, *_ = self.kvm.channel.ask([placed, self._at(rip, 0), *self._until_exit()])
        return reason.value if run.value == 0 else run.value

    def start(self, cpu: int, rip: int = SPIN_AT) -> None:
        """Run on a thread of its own, on that processor, until `stop`; it has been in the guest when this returns.

        The code at `rip` counts at DS:SI first; what is there of itself goes on counting.

        The helper keeps to processor 0, so that it takes no core away.

        Raises:
            HarnessError  it does not get there
        """
        at = self.kvm.memory + self.counter
        answers = self.kvm.channel.ask([
            self._at(rip, self.counter),
            f"p {self.run} 0",
            f"l {at}",
            f"t {self.fd} {cpu}",
            f"u {at} {Back(2)} {_GETTING_THERE}",
        ])  # fmt: skip
        self.thread = answers[3].value
        if not answers[-1].value:
            raise HarnessError(f"vCPU {self.id} does not run")

    def stop(self) -> int:
        """End the thread, and give the result of KVM_RUN."""
        if self.thread < 0:
            return 0
        thread, self.thread = self.thread, -1
        return self.kvm.channel.ask([f"p {self.run} 256", f"x {thread}", f"j {thread}", f"p {self.run} 0"])[2].value

    def closing(self) -> list[str]:
        """The requests that give it back, once it is stopped."""
        return [*([call("munmap", self.run, self.kvm.run_size)] if self.run else []), call("close", self.fd)]
