"""Virtual machines of the host's KVM with an in-kernel local APIC for each vCPU, and no more than that."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import signal
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from functools import cache

from conformance.real import kvm_requests as r
from conformance.verdict import HarnessError

PATIENCE = 2.0
"""Seconds that guest code of a few instructions may take."""
RETRIES = 20
OUT = b"\xe6\x10"
"""Ends guest code: out 0x10, al."""
CODE = 0x1000
"""Where guest code lies, above the page with the vectors of real mode and the stack."""
HANDLER = CODE + 0x100
"""Where the code of a handler lies."""
APIC_SIZE = 1024
APIC_ID, APIC_TPR, APIC_LDR, APIC_DFR, APIC_SPIV, APIC_ISR, APIC_TMR, APIC_IRR = (
    0x20, 0x80, 0xD0, 0xE0, 0xF0, 0x100, 0x180, 0x200,
)  # fmt: skip


class Kvm:
    """/dev/kvm."""

    def __init__(self, path: str = "/dev/kvm") -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def has(self, cap: int) -> int:
        """What KVM_CHECK_EXTENSION says."""
        return fcntl.ioctl(self.fd, r.CHECK_EXTENSION, cap)

    @property
    def version(self) -> int:
        """KVM_GET_API_VERSION."""
        return fcntl.ioctl(self.fd, r.GET_API_VERSION, 0)

    def create_vm(self) -> int:
        """A VM's descriptor; a signal may come in between, again and again."""
        for _ in range(RETRIES):
            with contextlib.suppress(InterruptedError):
                return fcntl.ioctl(self.fd, r.CREATE_VM, 0)
        raise HarnessError(f"KVM_CREATE_VM was interrupted {RETRIES} times")

    def run_size(self) -> int:
        """Bytes of the page that a vCPU shares with us."""
        return fcntl.ioctl(self.fd, r.GET_VCPU_MMAP_SIZE, 0)

    def cpuid(self) -> bytes:
        """What KVM_GET_SUPPORTED_CPUID offers, as KVM_SET_CPUID2 takes it."""
        buffer = bytearray(r.NUMBERS.pack(256, 0) + bytes(256 * 40))
        fcntl.ioctl(self.fd, r.GET_SUPPORTED_CPUID, buffer)
        count, _ = r.NUMBERS.unpack_from(buffer)
        return bytes(buffer[: 8 + 40 * count])

    def close(self) -> None:
        """Give it back."""
        os.close(self.fd)


@cache
def kvm() -> Kvm:
    """The one that this process uses."""
    return Kvm()


@cache
def _cpuid() -> bytes:
    return kvm().cpuid()


@cache
def _run_size() -> int:
    return kvm().run_size()


class Vm:
    """A VM with a split irqchip, unless it is to have none: local APICs in the kernel, nothing else there."""

    def __init__(self, x2apic_api: int = 0, *, split: bool = True) -> None:
        self.fd = kvm().create_vm()
        self.vcpus: list[Vcpu] = []
        self.memory: mmap.mmap | None = None
        try:
            if split:
                self.enable(r.CAP_SPLIT_IRQCHIP, 24)
            if x2apic_api:
                self.enable(r.CAP_X2APIC_API, x2apic_api)
        except OSError:
            self.close()
            raise

    def enable(self, cap: int, argument: int) -> None:
        """KVM_ENABLE_CAP."""
        fcntl.ioctl(self.fd, r.ENABLE_CAP, bytearray(r.CAP.pack(cap, 0, argument, 0, 0, 0)))

    def create_vcpu(self, vcpu_id: int) -> Vcpu:
        """KVM_CREATE_VCPU."""
        vcpu = Vcpu(self, fcntl.ioctl(self.fd, r.CREATE_VCPU, vcpu_id), vcpu_id)
        self.vcpus.append(vcpu)
        return vcpu

    def signal_msi(self, address: int, data: int, flags: int = 0) -> int:
        """KVM_SIGNAL_MSI: how many vCPUs accepted; OSError for an errno."""
        low, high = address & 0xFFFFFFFF, address >> 32
        return int(fcntl.ioctl(self.fd, r.SIGNAL_MSI, bytearray(r.MSI.pack(low, high, data, flags, 0))))

    def set_routing(self, routes: Sequence[tuple[int, int, int]]) -> None:
        """KVM_SET_GSI_ROUTING: the whole table, (gsi, address, data) each."""
        table = b"".join(
            r.ROUTE.pack(gsi, r.ROUTING_MSI, 0, 0, address & 0xFFFFFFFF, address >> 32, data, 0)
            for gsi, address, data in routes
        )
        fcntl.ioctl(self.fd, r.SET_GSI_ROUTING, bytearray(r.NUMBERS.pack(len(routes), 0) + table))

    def irqfd(self, fd: int, gsi: int, *, deassign: bool = False) -> None:
        """KVM_IRQFD. Once a descriptor is deassigned, what it signalled before has been delivered."""
        flags = r.IRQFD_DEASSIGN if deassign else 0
        fcntl.ioctl(self.fd, r.IRQFD, bytearray(r.FD_AND_GSI.pack(fd, gsi, flags, 0)))

    def guest_memory(self) -> mmap.mmap:
        """Two pages at address 0 for the code of guests."""
        if self.memory is None:
            self.memory = mmap.mmap(-1, 2 * mmap.PAGESIZE)
            address = _address(self.memory)
            region = r.MEMORY.pack(0, 0, 0, 2 * mmap.PAGESIZE, address)
            fcntl.ioctl(self.fd, r.SET_USER_MEMORY_REGION, bytearray(region))
        return self.memory

    def close(self) -> None:
        """Give all of it back."""
        for vcpu in self.vcpus:
            vcpu.close()
        self.vcpus = []
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self.memory = None


class Vcpu:
    """A vCPU; for most of what is asked of its local APIC it need not run."""

    def __init__(self, vm: Vm, fd: int, vcpu_id: int) -> None:
        self.vm = vm
        self.fd = fd
        self.id = vcpu_id
        self._run: mmap.mmap | None = None

    def get_lapic(self) -> bytearray:
        """KVM_GET_LAPIC."""
        registers = bytearray(APIC_SIZE)
        fcntl.ioctl(self.fd, r.GET_LAPIC, registers)
        return registers

    def set_lapic(self, registers: bytearray) -> None:
        """KVM_SET_LAPIC."""
        fcntl.ioctl(self.fd, r.SET_LAPIC, registers)

    def set_registers(self, values: dict[int, int]) -> None:
        """Some registers of the local APIC, by offset; the others stay as they are."""
        registers = self.get_lapic()
        for offset, value in values.items():
            struct.pack_into("<I", registers, offset, value)
        self.set_lapic(registers)

    def pending(self, vector: int) -> bool:
        """Whether IRR has the vector."""
        return has(self.get_lapic(), APIC_IRR, vector)

    def set_msr(self, index: int, value: int) -> int:
        """KVM_SET_MSRS of one: 1, or 0 where it is refused."""
        entries = bytearray(r.NUMBERS.pack(1, 0) + r.MSR.pack(index, 0, value))
        return int(fcntl.ioctl(self.fd, r.SET_MSRS, entries))

    def set_cpuid(self) -> None:
        """All that KVM supports, x2APIC mode included."""
        fcntl.ioctl(self.fd, r.SET_CPUID2, bytearray(_cpuid()))

    def run_real_mode(self, code: bytes, data_base: int) -> int:
        """Run code that ends with OUT, in real mode, with that base of DS; the port that it wrote to."""
        self.place(code, data_base)
        return self.run()

    def place(self, code: bytes, data_base: int) -> None:
        """Have the next run begin with this code, in real mode, with that base of DS."""
        memory = self.vm.guest_memory()
        memory[CODE : CODE + len(code)] = code
        fcntl.ioctl(self.fd, r.SET_MP_STATE, bytearray(4))
        sregs = bytearray(312)
        fcntl.ioctl(self.fd, r.GET_SREGS, sregs)
        for number, (base, kind) in enumerate(((0, 0xB), (data_base, 0x3))):
            r.SEGMENT.pack_into(sregs, 24 * number, base, 0xFFFF, base >> 4 & 0xFFFF, kind, 1, 0, 0, 1, 0, 0, 0)
        fcntl.ioctl(self.fd, r.SET_SREGS, sregs)
        regs = bytearray(144)
        struct.pack_into("<Q", regs, 48, CODE)  # RSP, below the code
        struct.pack_into("<QQ", regs, 128, CODE, 2)  # RIP and RFLAGS
        fcntl.ioctl(self.fd, r.SET_REGS, regs)

    def set_handler(self, vector: int) -> None:
        """A handler of real mode that writes to port 0x10."""
        memory = self.vm.guest_memory()
        memory[4 * vector : 4 * vector + 4] = struct.pack("<HH", HANDLER, 0)
        memory[HANDLER : HANDLER + 2] = OUT

    def enter_handler(self, vector: int) -> bytearray:
        """Take a pending interrupt in real mode; the local APIC as KVM shows it in the middle of the handler."""
        self.set_handler(vector)
        self.run_real_mode(b"\xfb\x90\xeb\xfd", 0)  # sti; nop; jmp to the nop
        return self.get_lapic()

    def run(self) -> int:
        """KVM_RUN until the guest writes to a port; HarnessError for anything else, or too late."""
        page = self.page
        with _watched(page) as late:
            while not late.is_set():
                try:
                    fcntl.ioctl(self.fd, r.RUN, 0)
                except InterruptedError:
                    continue
                break
        reason = struct.unpack_from("<I", page, r.EXIT_REASON)[0]
        if late.is_set() or reason != r.EXIT_IO:
            raise HarnessError(f"guest code on vCPU {self.id} ended with exit {reason}, not with OUT")
        return int(struct.unpack_from("<H", page, r.EXIT_PORT)[0])

    @property
    def page(self) -> mmap.mmap:
        """What it shares with us: kvm_run."""
        if self._run is None:
            self._run = mmap.mmap(self.fd, _run_size())
        return self._run

    def close(self) -> None:
        """Give it back."""
        if self._run is not None:
            self._run.close()
        os.close(self.fd)


def has(registers: bytearray, base: int, vector: int) -> bool:
    """Whether one of the 256-bit registers has a vector."""
    return registers[base + 16 * (vector >> 5) + (vector >> 3 & 3)] >> (vector & 7) & 1 == 1


def vectors(registers: bytearray, base: int) -> tuple[int, ...]:
    """The vectors that one of the 256-bit registers has."""
    return tuple(v for v in range(256) if has(registers, base, v))


def _address(memory: mmap.mmap) -> int:
    """Where a mapping lies in this process."""
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


class _Watcher(threading.Thread):
    """Makes KVM_RUN return where a guest takes too long."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name="kvm-run-watcher")
        self.runs: dict[int, tuple[float, mmap.mmap, threading.Event]] = {}
        """By thread: since when, the page that it shares with the vCPU, and what is set when it is too late."""

    def run(self) -> None:
        """Look now and then."""
        while True:
            time.sleep(PATIENCE / 4)
            for thread, (started, page, late) in list(self.runs.items()):
                if time.monotonic() - started > PATIENCE:
                    late.set()
                    with contextlib.suppress(ValueError):  # it has just ended
                        page[r.IMMEDIATE_EXIT] = 1
                    signal.pthread_kill(thread, signal.SIGUSR1)


@cache
def watcher() -> _Watcher:
    """The one of this process; in the main thread, where handlers of signals can be installed."""
    if signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
        try:
            signal.signal(signal.SIGUSR1, lambda *_: None)
        except ValueError:
            raise HarnessError("guest code can be run by a process's main thread alone") from None
    made = _Watcher()
    made.start()
    return made


@contextlib.contextmanager
def _watched(page: mmap.mmap) -> Iterator[threading.Event]:
    """Have a run ended that lasts too long."""
    of, thread, late = watcher(), threading.get_ident(), threading.Event()
    of.runs[thread] = (time.monotonic(), page, late)
    try:
        yield late
    finally:
        del of.runs[thread]
        page[r.IMMEDIATE_EXIT] = 0
