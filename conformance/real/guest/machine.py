"""A guest: QEMU without hardware help, a Debian kernel, and what the suite holds of it.

QEMU is given its sockets, its memory and its console as open descriptors, so that no file but the cache's is made, and
nothing is left when it ends. It ends with the process that started it: by its id, or by the kernel when that process
dies.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import mmap
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache as once
from functools import partial
from pathlib import Path
from typing import Any

from conformance.processes import die_with
from conformance.real.guest.channel import Channel
from conformance.real.guest.initramfs import HELPER, has_module, initramfs
from conformance.real.guest.ivshmem import Doorbell
from conformance.real.guest.packages import Kernel, cache
from conformance.real.guest.snapshots import Origin, kept, sweep
from conformance.real.tools import ran
from conformance.verdict import Breach, HarnessError, UsageError

QEMU = "qemu-system-x86_64"
BOOT = 300.0
"""Seconds until the helper must answer; four on a quiet machine."""
LAYOUT = 2
"""Changes when snapshots of before no longer fit the command line, or hold what is no longer prepared."""
ASKING = 60.0
"""Seconds that QEMU may take to say its version."""
ENDING = 10.0
"""Seconds that QEMU may take to end once it has closed its sockets."""

Connect = Callable[[dict[str, socket.socket]], Mapping[int, Doorbell]]
"""Serves our ends of a guest's sockets, by name."""
Prepare = Callable[[Channel], None]
"""Asks of a guest what is to be there whenever it is restored."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a guest is made of; guests of equal machines are alike."""

    kernel: Kernel
    modules: tuple[str, ...] = ()
    parameters: str = ""
    """Given to every module; a module ignores what it does not know."""
    lines: tuple[str, ...] = ()
    """Of the script that starts the guest, once the modules are there."""
    append: str = ""
    """More of the kernel's command line."""
    cpu: str = "EPYC"
    cpus: int = 1
    memory: int = 256
    """MiB."""
    devices: tuple[str, ...] = ()
    """More of QEMU's command line; `{NAME}` stands for the descriptor of that name in `sockets`."""
    sockets: tuple[str, ...] = ()
    """Names of further sockets that QEMU is given; the suite keeps the other ends."""

    @property
    def key(self) -> str:
        """Names the machine in the cache."""
        content = repr((self, qemu_version(), HELPER.read_bytes(), LAYOUT))
        return hashlib.sha256(content.encode()).hexdigest()[:24]

    @property
    def origin(self) -> Origin:
        """What else its snapshot is made from; without one of these there is no such machine any more."""
        helper = hashlib.sha256(HELPER.read_bytes()).hexdigest()
        return {"kernel": str(self.kernel.vmlinuz), "qemu": qemu_version(), "helper": helper, "layout": str(LAYOUT)}


@once
def qemu_version() -> str:
    """What QEMU calls itself; UsageError where it is not on this machine."""
    path = shutil.which(QEMU)
    if path is None:
        raise UsageError(
            f"{QEMU} is not on this machine (apt-get install --no-install-recommends qemu-system-x86), "
            "so no guest can be started"
        )
    return ran((path, "--version"), ASKING).stdout


@dataclass(slots=True)
class Guest:
    """A guest that runs. `connect` serves the further sockets, before the guest looks at them.

    `prepare` asks it for what the snapshot is to hold.
    """

    machine: Machine
    connect: Connect | None = None
    prepare: Prepare | None = None
    process: subprocess.Popen[bytes] = field(init=False)
    channel: Channel = field(init=False)
    ram: mmap.mmap = field(init=False)
    """The guest's memory: guest physical address = offset."""
    served: Mapping[int, Doorbell] = field(init=False, default_factory=dict)
    """What `connect` gave: the doorbells by their number of vectors."""
    restored: bool = field(init=False, default=False)
    holder: Any = field(init=False, default=None)
    """The world that it is lent to."""
    functions: dict[str, Any] = field(init=False, default_factory=dict)
    """What is known of its PCI functions, by address."""
    vmcbs: dict[int, None] = field(init=False, default_factory=dict)
    """Pages in which VMCBs have been."""
    sregs: dict[bool, bytes] = field(init=False, default_factory=dict)
    """Of fresh vCPUs: of the one with id 0, and of others."""
    _console: int = field(init=False)
    _control: socket.socket = field(init=False)
    _owner: int = field(init=False)
    _ends: dict[str, socket.socket] = field(init=False, default_factory=dict)
    """Our ends of its sockets."""

    def __post_init__(self) -> None:
        self._owner = os.getpid()
        snapshot = cache() / "guests" / f"{self.machine.key}.state"
        with kept(snapshot, self.machine.origin):
            try:
                self.restored = snapshot.is_file()
                self._start(snapshot if self.restored else None)
                if not self.restored:
                    if self.prepare is not None:
                        self.prepare(self.channel)
                    self._keep(snapshot)
            except BaseException:
                self.close()
                raise

    def _start(self, snapshot: Path | None) -> None:
        qemu_version()
        images = self._images()
        size = self.machine.memory << 20
        with contextlib.ExitStack() as stack:
            ours, theirs = self._ends, {}
            for name in ("helper", "control", *self.machine.sockets):
                ours[name], theirs[name] = socket.socketpair()
                stack.callback(theirs[name].close)
            memory = os.memfd_create("guest-ram")
            stack.callback(os.close, memory)
            os.ftruncate(memory, size)
            self._console = os.memfd_create("guest-console")
            inherited = {name: end.fileno() for name, end in theirs.items()}
            if self.connect is not None:
                self.served = self.connect(ours)
            command = [*self._command(images, inherited, memory)]
            if snapshot is not None:
                command += ["-incoming", f"exec:cat {shlex.quote(str(snapshot))}"]
            passed = (*inherited.values(), memory, self._console)
            self.process = subprocess.Popen(  # noqa: S603 - QEMU
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._console,
                pass_fds=passed, preexec_fn=partial(die_with, os.getpid()),  # noqa: PLW1509 - two calls of the C library
            )  # fmt: skip
            self.ram = mmap.mmap(memory, size)
        atexit.register(self.close)
        self._control = ours["control"]
        self.channel = Channel(ours["helper"])
        self._control.settimeout(BOOT)
        try:
            self.command("qmp_capabilities")
            if snapshot is not None:
                self._until_restored()
                self.command("cont")
        except HarnessError:
            if snapshot is not None:
                snapshot.unlink(missing_ok=True)  # the next guest starts without it
            raise
        self._until_ready()

    def _images(self) -> Path:
        """The initramfs, from the cache or made now."""
        target = cache() / "guests" / f"{self.machine.key}.cpio.gz"
        if not target.is_file():
            machine = self.machine
            modules = [name for name in ("virtio_pci", "virtio_console") if has_module(machine.kernel, name)]
            content = initramfs(machine.kernel, (*modules, *machine.modules), machine.parameters, machine.lines)
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = target.with_name(f".{target.name}.{os.getpid()}")
            fresh.write_bytes(content)
            fresh.replace(target)
        return target

    def _command(self, initrd: Path, inherited: dict[str, int], memory: int) -> Iterator[str]:
        machine = self.machine
        yield from (QEMU, "-M", "q35,memory-backend=ram0", "-accel", "tcg", "-cpu", machine.cpu)
        yield from ("-m", str(machine.memory), "-smp", str(machine.cpus), "-nodefaults", "-no-user-config")
        backend = f"memory-backend-file,id=ram0,size={machine.memory}M,mem-path=/proc/self/fd/{memory},share=on"
        yield from ("-object", backend, "-display", "none", "-no-reboot")
        yield from ("-chardev", f"file,id=console,path=/proc/self/fd/{self._console},append=on")
        yield from ("-serial", "chardev:console")
        yield from ("-chardev", f"socket,id=control,fd={inherited['control']}", "-mon", "chardev=control,mode=control")
        yield from ("-chardev", f"socket,id=helper,fd={inherited['helper']}", "-device", "virtio-serial-pci")
        yield from ("-device", "virtserialport,chardev=helper,name=helper")
        for word in machine.devices:
            yield word.format(**inherited)
        yield from ("-kernel", str(machine.kernel.vmlinuz), "-initrd", str(initrd))
        yield from ("-append", f"console=ttyS0 quiet panic=-1 no_timer_check {machine.append}".rstrip())

    def command(self, execute: str, **arguments: Any) -> Any:
        """A command of QEMU's machine protocol, and what it returned.

        Raises:
            HarnessError  it was refused, or QEMU is gone
        """
        try:
            self._control.sendall(json.dumps({"execute": execute, "arguments": arguments}).encode() + b"\n")
            for line in self._replies():
                if "return" in line:
                    return line["return"]
                if "error" in line:
                    raise HarnessError(f"QEMU refuses {execute}: {line['error'].get('desc')}")
        except OSError as error:
            raise HarnessError(f"QEMU is gone ({error}); {self.last_words()}") from None
        raise HarnessError(f"QEMU has ended; {self.last_words()}")

    def _replies(self) -> Iterator[dict[str, Any]]:
        rest = b""
        while True:
            more = self._control.recv(1 << 16)
            if not more:
                return
            *lines, rest = (rest + more).split(b"\n")
            for line in lines:
                if line.strip():
                    yield json.loads(line)

    def _until(self, what: str, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + BOOT
        while not ready():
            if self.process.poll() is not None:
                raise HarnessError(f"QEMU ended while {what}: {self.last_words()}")
            if time.monotonic() > end:
                raise HarnessError(f"{BOOT:g} s were not enough while {what}: {self.last_words()}")
            time.sleep(0.01)

    def _until_restored(self) -> None:
        def ready() -> bool:
            state = self.command("query-status")["status"]
            if state == "internal-error":
                raise HarnessError(f"the snapshot cannot be restored: {self.last_words()}")
            return bool(state != "inmigrate")

        self._until("the snapshot was restored", ready)

    def _until_ready(self) -> None:
        if not self.restored:
            self._until("the kernel started", lambda: b"conformance: ready" in self.console())
        try:
            self.channel.one("d 0", BOOT)
        except Breach as breach:
            raise HarnessError(f"the guest did not start: {breach.detail}; {self.last_words()}") from None

    def _keep(self, snapshot: Path) -> None:
        """Write the state to the cache, for the next guest that is made like this one."""
        fresh = snapshot.with_name(f".{snapshot.name}.{os.getpid()}")
        self.command("stop")
        try:
            fresh.touch()
            # It may begin only when we have given up, and then there must be no file any more.
            self.command("migrate", uri=f"exec:dd conv=nocreat bs=1M status=none of={shlex.quote(str(fresh))}")
            self._until("the snapshot was taken", self._is_taken)
            fresh.replace(snapshot)
            sweep(snapshot.parent, self.machine.origin)
        finally:
            fresh.unlink(missing_ok=True)
        self.command("cont")

    def _is_taken(self) -> bool:
        status = self.command("query-migrate").get("status")
        if status == "failed":
            raise HarnessError("QEMU could not write the snapshot")
        return bool(status == "completed")

    def console(self) -> bytes:
        """What the kernel and QEMU printed."""
        return os.pread(self._console, 1 << 20, 0)

    def last_words(self) -> str:
        """What went wrong, as far as it was printed, and the end of it, on one line."""
        lines = [line.strip() for line in self.console().decode(errors="replace").split("\n") if line.strip()]
        telling = [line for line in lines[:-6] if re.search(r"BUG|Oops|RIP: 0010|fault|unable to", line)]
        return " / ".join([*telling[:4], *lines[-6:]]) or "nothing was printed"

    @property
    def alive(self) -> bool:
        """Whether it can be used by this process."""
        return self._owner == os.getpid() and self.channel.is_open and self.process.poll() is None

    def ended(self) -> tuple[bool, str]:
        """Whether it was its kernel that ended rather than QEMU, and how, of a guest that is gone."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(ENDING)
        code, printed = self.process.poll(), self.console().decode(errors="replace")
        if code == 0:  # the machine is not to reboot
            told = re.findall(r"\] ((?:BUG|Oops|RIP|Kernel panic)[^\r\n]*)", printed)
            return True, f"the kernel in the guest ended: {' / '.join(dict.fromkeys(told)) or 'the machine was reset'}"
        if code is None:
            return False, "QEMU closed its sockets"
        said = [line for line in printed.split("\n") if line.startswith(QEMU) and "warning: " not in line]
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return False, f"QEMU ended with {how}" + (f" ({said[-1].strip()})" if said else "")

    def close(self) -> None:
        """End QEMU, by its id, and wait for it. A copy of this in a forked process does nothing."""
        atexit.unregister(self.close)
        if self._owner != os.getpid():
            return
        if hasattr(self, "process"):
            if self.process.poll() is None:
                self.process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
        for end in self._ends.values():
            end.close()
        for doorbell in self.served.values():
            doorbell.close()
        if hasattr(self, "ram"):
            self.ram.close()
        if hasattr(self, "_console"):
            os.close(self._console)
            del self._console


_running: dict[str, Guest] = {}


def guest(machine: Machine, connect: Connect | None = None, prepare: Prepare | None = None) -> Guest:
    """The one guest of this machine in this process, started when it is first asked for, and again when it has died."""
    found = _running.get(machine.key)
    if found is None or not found.alive:
        if found is not None:
            found.close()
        found = _running[machine.key] = Guest(machine, connect, prepare)
    return found


def end_all() -> None:
    """End the guests of this process."""
    for found in _running.values():
        found.close()
    _running.clear()
