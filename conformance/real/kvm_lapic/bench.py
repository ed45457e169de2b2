"""The acts of scripts on the host's KVM: each is an ioctl, or a guest of a few instructions."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import signal
import struct
import threading
import time
from collections.abc import Callable

from conformance.real import kvm_requests as r
from conformance.real.kvm_lapic.machine import (
    APIC_IRR,
    APIC_ISR,
    APIC_SPIV,
    APIC_TMR,
    Vcpu,
    Vm,
    vectors,
    watcher,
)
from conformance.real.scripts import Bench, act
from conformance.verdict import HarnessError

BANKS = {"isr": APIC_ISR, "tmr": APIC_TMR, "irr": APIC_IRR}
PATIENCE = 5.0
"""Seconds that a vCPU has to halt, or to end."""
MARK = 0x800
"""Where a guest says that it has begun."""
_HALT = b"\xc6\x06\x00\x08\x01\xf4\xe6\x20"
"""mov byte [0x800], 1; hlt; out 0x20, al."""
_STI = b"\xfb"
_SREGS, _APIC_BASE = 312, 272


class KvmBench(Bench):
    """One VM, made by the first act."""

    def __init__(self) -> None:
        self.given = contextlib.ExitStack()
        self.made: Vm | None = None
        self.threads: dict[int, tuple[threading.Thread, list[int]]] = {}
        """By vCPU: the thread that runs it, and what KVM_RUN gave."""

    def close(self) -> None:
        """The VM; nothing runs any more."""
        for vcpu in list(self.threads):
            self.stop(vcpu)
        self.given.close()

    @property
    def the_vm(self) -> Vm:
        """The one that was made."""
        if self.made is None:
            raise HarnessError("a script asks for something of a VM before it makes one")
        return self.made

    def of(self, vcpu: int) -> Vcpu:
        """The vCPU of that id."""
        return next(found for found in self.the_vm.vcpus if found.id == vcpu)

    # -- VMs

    @act
    def vm(self, x2apic_api: int = 0, irqchip: str = "split") -> int:
        """KVM_CREATE_VM, and the irqchip: `split`, `full` or `none`."""
        self.made = Vm(x2apic_api, split=irqchip == "split")
        self.given.callback(self.made.close)
        if irqchip == "full":
            fcntl.ioctl(self.made.fd, r.CREATE_IRQCHIP, 0)
        return 0

    @act
    def check_extension(self, cap: int) -> int:
        """KVM_CHECK_EXTENSION of the VM."""
        return fcntl.ioctl(self.the_vm.fd, r.CHECK_EXTENSION, cap)

    @act
    def enable_cap(self, cap: int, argument: int) -> int:
        """KVM_ENABLE_CAP of the VM."""
        self.the_vm.enable(cap, argument)
        return 0

    @act
    def create_vcpu(self, vcpu: int, enabled: bool = True) -> int:
        """KVM_CREATE_VCPU; with the local APIC enabled by SPIV unless it is not to be."""
        made = self.the_vm.create_vcpu(vcpu)
        if enabled:
            made.set_registers({APIC_SPIV: 0x1FF})
        return 0

    @act
    def signal_msi(self, address: int, data: int, flags: int = 0) -> int:
        """KVM_SIGNAL_MSI."""
        return self.the_vm.signal_msi(address, data, flags)

    @act
    def set_gsi_routing(self, gsi: int, address: int, data: int, times: int = 1) -> int:
        """KVM_SET_GSI_ROUTING of one MSI, or of one gsi so many times, with a vector more each."""
        self.the_vm.set_routing([(gsi, address, data + n) for n in range(times)])
        return 0

    # -- vCPUs

    @act
    def set_register(self, vcpu: int, offset: int, value: int) -> int:
        """KVM_SET_LAPIC with one register changed."""
        self.of(vcpu).set_registers({offset: value})
        return 0

    @act
    def register(self, vcpu: int, offset: int) -> int:
        """A register in KVM_GET_LAPIC."""
        return int(struct.unpack_from("<I", self.of(vcpu).get_lapic(), offset)[0])

    @act
    def pending(self, vcpu: int, bank: str = "irr") -> list[int]:
        """The vectors in IRR, ISR or TMR."""
        return list(vectors(self.of(vcpu).get_lapic(), BANKS[bank]))

    @act
    def set_msr(self, vcpu: int, msr: int, value: int) -> int:
        """KVM_SET_MSRS of one: how many were set."""
        return self.of(vcpu).set_msr(msr, value)

    @act
    def set_cpuid(self, vcpu: int) -> int:
        """KVM_SET_CPUID2 with all that is supported."""
        self.of(vcpu).set_cpuid()
        return 0

    @act
    def set_apic_base(self, vcpu: int, value: int) -> int:
        """KVM_SET_SREGS with another APIC base."""
        fd, sregs = self.of(vcpu).fd, bytearray(_SREGS)
        fcntl.ioctl(fd, r.GET_SREGS, sregs)
        struct.pack_into("<Q", sregs, _APIC_BASE, value)
        fcntl.ioctl(fd, r.SET_SREGS, sregs)
        return 0

    @act
    def mp_state(self, vcpu: int) -> int:
        """KVM_GET_MP_STATE."""
        state = bytearray(4)
        fcntl.ioctl(self.of(vcpu).fd, r.GET_MP_STATE, state)
        return int(struct.unpack("<I", state)[0])

    # -- guests

    @act
    def run(self, vcpu: int, code: str) -> int:
        """Run code in real mode until it writes to a port, which is the result."""
        return self.of(vcpu).run_real_mode(bytes.fromhex(code), 0)

    @act
    def set_handler(self, vcpu: int, vector: int) -> int:
        """The guest's handler of a vector, which writes to port 0x10."""
        self.of(vcpu).set_handler(vector)
        return 0

    @act
    def halt(self, vcpu: int, interrupts: bool = False) -> int:
        """Begin a guest on a thread of its own, which halts, and writes to port 0x20 when it goes on."""
        of = self.of(vcpu)
        of.place((_STI if interrupts else b"") + _HALT, 0)
        self.the_vm.guest_memory()[MARK] = 0
        watcher()  # which makes a signal one that interrupts
        results: list[int] = []
        thread = threading.Thread(target=self._run, args=(of, results), daemon=True)
        self.threads[vcpu] = thread, results
        thread.start()
        self._until(lambda: bool(self.the_vm.guest_memory()[MARK]) or bool(results))
        return 0

    def _run(self, vcpu: Vcpu, results: list[int]) -> None:
        try:
            fcntl.ioctl(vcpu.fd, r.RUN, 0)
        except OSError as error:
            results.append(-(error.errno or errno.EIO))
        else:
            results.append(int(struct.unpack_from("<H", vcpu.page, r.EXIT_PORT)[0]))

    @act
    def ended(self, vcpu: int) -> int:
        """Wait for the guest of `halt` to end of itself: the port that it wrote to."""
        thread, results = self.threads.pop(vcpu)
        thread.join(PATIENCE)
        return results[0] if results else -errno.ETIMEDOUT

    @act
    def stop(self, vcpu: int) -> int:
        """End the guest of `halt`, with immediate_exit and a signal: what KVM_RUN gives."""
        thread, results = self.threads.pop(vcpu)
        page = self.of(vcpu).page

        def signalled() -> bool:
            page[r.IMMEDIATE_EXIT] = 1
            if thread.ident is not None and thread.is_alive():
                with contextlib.suppress(ProcessLookupError):
                    signal.pthread_kill(thread.ident, signal.SIGUSR1)
            return bool(results)

        self._until(signalled)
        thread.join(PATIENCE)
        page[r.IMMEDIATE_EXIT] = 0
        return results[0] if results else -errno.ETIMEDOUT

    @act
    def halted(self, vcpu: int) -> int:
        """The mp_state of a stopped guest, which is let go on until it is at its HLT."""
        for _ in range(20):
            if (state := self.mp_state(vcpu)) != 0:
                return state
            of = self.of(vcpu)
            results: list[int] = []
            thread = threading.Thread(target=self._run, args=(of, results), daemon=True)
            self.threads[vcpu] = thread, results
            thread.start()
            time.sleep(0.01)
            self.stop(vcpu)
        return state

    def _until(self, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not ready() and time.monotonic() < end:
            time.sleep(0.0005)
