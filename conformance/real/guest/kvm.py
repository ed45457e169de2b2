"""KVM inside a guest: VMs and vCPUs by ioctl through the helper, and their VMCBs in the guest's memory."""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass, field

from conformance.real import kvm_requests as r
from conformance.real.guest.channel import O_RDWR, Answer, Channel, call, opening
from conformance.real.guest.machine import Guest, Machine, guest
from conformance.real.guest.packages import Kernel
from conformance.specs.avic.constants import APIC_BASE, VMCB_APIC_BAR
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
        self.fd = self.channel.must(opening("/dev/kvm", O_RDWR))
        self.run_size = self.channel.must(call("ioctl", self.fd, r.GET_VCPU_MMAP_SIZE, 0))
        self.memory = self.map(MEMORY, 0x21, 2**64 - 1)
        self.channel.ask([
            call("sched_setaffinity", 0, 8, struct.pack("<Q", 1)),
            f"w {self.memory + OUT_AT} {_OUT.hex()}",
            f"w {self.memory + SPIN_AT} {_SPIN.hex()}",
        ])  # fmt: skip

    def map(self, size: int, flags: int, fd: int) -> int:
        """Map memory in the helper."""
        return self.channel.must(call("mmap", 0, size, 3, flags, fd, 0))

    def create_vm(self, *, irqchip: bool = True, memory: bool = True) -> int:
        """A VM with a local APIC in the kernel and the memory of all; its descriptor."""
        vm = self.channel.must(call("ioctl", self.fd, r.CREATE_VM, 0))
        if irqchip:
            self.channel.must(call("ioctl", vm, r.ENABLE_CAP, r.CAP.pack(r.CAP_SPLIT_IRQCHIP, 0, 24, 0, 0, 0)))
        if memory:
            self.channel.must(call("ioctl", vm, r.SET_USER_MEMORY_REGION, r.MEMORY.pack(0, 0, 0, MEMORY, self.memory)))
        return vm

    def close(self) -> None:
        """Give it back."""
        self.channel.ask([call("close", self.fd), call("munmap", self.memory, MEMORY)])


@dataclass(slots=True)
class Vcpu:
    """A vCPU, and its VMCB."""

    kvm: Kvm
    vm: int
    """Descriptor of the VM."""
    id: int
    fd: int
    vmcb: int = -1
    """Address in the guest's memory."""
    run: int = 0
    """Where its kvm_run lies in the helper."""
    thread: int = -1
    counter: int = 0

    def set_up(self) -> None:
        """Let it start at the beginning of memory, and find its VMCB by a number that nothing else holds."""
        kvm = self.kvm
        number = next(_numbers)
        mark = 0x5EED_0000_0000 | number << 8 | 0x5A
        sregs = bytearray(self.ask(r.GET_SREGS, bytes(312)).data[0])
        struct.pack_into("<QIH", sregs, _SREGS_CS, 0, 0xFFFF, 0)
        struct.pack_into("<Q", sregs, _SREGS_FS, mark)
        lines = [
            call("ioctl", self.fd, r.SET_SREGS, bytes(sregs)),
            call("ioctl", self.fd, r.SET_MP_STATE, struct.pack("<I", MP_STATE_RUNNABLE)),
            call("mmap", 0, kvm.run_size, 3, 1, self.fd, 0),
        ]
        self.run = kvm.channel.ask(lines)[2].value
        self.counter = COUNTERS + 16 * (number % 64)
        ram = memoryview(kvm.guest.ram).cast("Q")
        try:
            marked = [n for n, value in enumerate(ram[_FS_BASE // 8 :: _PAGE // 8].tolist()) if value == mark]
            with_avic = [n for n in marked if ram[(n * _PAGE + VMCB_APIC_BAR) // 8] == APIC_BASE]
            found = with_avic or marked
        finally:
            ram.release()
        if len(found) != 1:
            raise HarnessError(f"{len(found)} VMCBs have the mark of a vCPU")
        self.vmcb = found[0] * _PAGE

    def ask(self, request: int, argument: bytes) -> Answer:
        """An ioctl of the vCPU."""
        return self.kvm.channel.one(call("ioctl", self.fd, request, argument))

    def read(self, offset: int, form: str = "<Q") -> int:
        """A field of the VMCB."""
        return int(struct.unpack_from(form, self.kvm.guest.ram, self.vmcb + offset)[0])

    def _set_rip(self, rip: int, rsi: int) -> None:
        registers = [0] * 18
        registers[4], registers[16], registers[17] = rsi, rip, 2
        self.ask(r.SET_REGS, struct.pack("<18Q", *registers))

    def visit(self) -> int:
        """Run one instruction that ends with an exit to user space, and let KVM complete it. 0 or a negative errno."""
        self._set_rip(OUT_AT, 0)
        run = call("ioctl", self.fd, r.RUN, 0)
        return self.kvm.channel.ask([run, f"p {self.run} 256", run, f"p {self.run} 0"])[0].value

    def run_at(self, code: int, rip: int, data: int) -> int:
        """Run code at some base, with data at another, until the first exit; its reason, or a negative errno."""
        sregs = bytearray(self.ask(r.GET_SREGS, bytes(312)).data[0])
        struct.pack_into("<Q", sregs, _SREGS_CS, code)
        struct.pack_into("<Q", sregs, _SREGS_DS, data)
        self.ask(r.SET_SREGS, bytes(sregs))
        self._set_rip(rip, 0)
        run = call("ioctl", self.fd, r.RUN, 0)
        answers = self.kvm.channel.ask(
            [run, f"l {self.run + r.EXIT_REASON}", f"p {self.run} 256", run, f"p {self.run} 0"]
        )
        return answers[1].value if answers[0].value == 0 else answers[0].value

    def start(self, cpu: int) -> None:
        """Run on a thread of its own, on that processor, until `stop`; it is in the guest when this returns.

        The helper keeps to processor 0, so that it takes no core away.

        Raises:
            HarnessError  it does not get there
        """
        channel = self.kvm.channel
        self._set_rip(SPIN_AT, self.counter)
        pinned, free = struct.pack("<Q", 1 << cpu), struct.pack("<Q", 1)
        lines = [
            f"p {self.run} 0",
            call("sched_setaffinity", 0, 8, pinned),
            f"t {self.fd}",
            call("sched_setaffinity", 0, 8, free),
        ]
        self.thread = channel.ask(lines)[2].value
        at = self.kvm.memory + self.counter
        first = channel.one(f"l {at}").value
        for _ in range(2000):
            if channel.one(f"l {at}").value != first:
                return
        raise HarnessError(f"vCPU {self.id} does not run")

    def stop(self) -> int:
        """End the thread, and give the result of KVM_RUN."""
        if self.thread < 0:
            return 0
        channel, thread = self.kvm.channel, self.thread
        self.thread = -1
        channel.one(f"p {self.run} 256")
        for _ in range(2000):
            if channel.ask([f"x {thread}", f"d {thread}"])[1].value:
                break
        answers = channel.ask([f"j {thread}", f"p {self.run} 0"])
        return answers[0].value

    def close(self) -> None:
        """Stop it, and give it back."""
        self.stop()
        lines = [call("munmap", self.run, self.kvm.run_size)] if self.run else []
        self.kvm.channel.ask([*lines, call("close", self.fd)])
