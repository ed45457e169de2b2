"""A Bochs with a ROM of our own that does what it is asked over a serial line."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import tty
from functools import cache, partial
from importlib import resources
from pathlib import Path

from conformance.processes import die_with
from conformance.real.tools import ran
from conformance.verdict import HarnessError, UsageError

PATIENCE, BOOTING = 30.0, 60.0
"""Seconds that a reply may take, and the first one."""
GLANCE = 0.5
"""Seconds between two looks whether it is still there."""
IPS = 1_000_000
"""Instructions of one second of the virtual clock: the fewer, the sooner the serial line has the next byte."""
RDMSR, WRMSR, CPUID, SET_CR4, SET_CR0, READ_CRS, XSAVES, XRSTORS, LOAD, STORE, CLEAN, ENDBR64 = range(1, 13)
"""Requests of the ROM."""
ARGUMENT, VALUE, DATA8, DATA16 = 0x10, 0x20, 0x40, 0x80
SHAPES = {
    RDMSR: ARGUMENT | DATA8,
    WRMSR: ARGUMENT | VALUE,
    CPUID: ARGUMENT | VALUE | DATA16,
    SET_CR4: VALUE,
    SET_CR0: VALUE,
    READ_CRS: DATA16,
    XSAVES: ARGUMENT,
    XRSTORS: ARGUMENT,
    LOAD: ARGUMENT | DATA8,
    STORE: ARGUMENT | VALUE,
    CLEAN: 0,
    ENDBR64: 0,
}
"""What follows each request, and how long its reply is: a byte takes as long as 90 instructions."""
UP = 0xFF
"""In place of a vector: the ROM has come up."""
BASE = 0xF0000

CONFIGURATION = """\
display_library: term
config_interface: textconfig
plugin_ctrl: unmapped=1, biosdev=0, speaker=0, extfpuirq=0, parallel=0, serial=1, gameport=0, iodebug=0
memory: guest=8, host=8
cpu: model={model}, count=1, ips={ips}, ignore_bad_msrs={ignored}, reset_on_triple_fault=0
romimage: file={folder}/rom.bin, address=0xffff0000
vgaromimage: file={folder}/vga.bin
com1: enabled=1, mode=term, dev={serial}
vga: extension=none, update_freq=1
log: {folder}/log
panic: action=fatal
error: action=report
"""


def tools() -> str:
    """UsageError where Bochs, or what builds the ROM, is not installed; the version of Bochs."""
    missing = [name for name in ("bochs", "as", "ld") if shutil.which(name) is None]
    if missing:
        raise UsageError(
            f"real:bochs-cet needs {' and '.join(missing)}, not installed here: "
            "on Debian the packages bochs, bochs-term and binutils have them"
        )
    told = ran(("bochs", "--help"), PATIENCE)
    return next((line.strip() for line in (told.stdout + told.stderr).splitlines() if "Bochs" in line), "Bochs")


@cache
def rom() -> bytes:
    """Our ROM, assembled."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        where = Path(folder)
        (where / "rom.S").write_text(resources.files(__package__).joinpath("rom.S").read_text())
        for command in (
            ["as", "--64", "-o", "rom.o", "rom.S"],
            ["ld", "-m", "elf_x86_64", "--oformat", "binary", "-Ttext", hex(BASE), "-o", "rom.bin", "rom.o"],
        ):
            try:
                ran(command, PATIENCE, where)
            except UsageError as error:
                raise UsageError(f"real:bochs-cet: the ROM cannot be assembled: {error}") from None
        return (where / "rom.bin").read_bytes()


def vga_rom() -> bytes:
    """An option ROM that does nothing; its bytes add up to 0."""
    image = bytearray(512)
    image[:4] = b"\x55\xaa\x01\xcb"
    image[-1] = -sum(image) & 0xFF
    return bytes(image)


class Dead(HarnessError):
    """It has ended, or does not answer."""


class Bochs:
    """One virtual machine of one model of CPU; a process of ours, which ends with us.

    Its files are there until it has come up, so that nothing is left of it however we end.
    """

    def __init__(self, model: str, *, ignores_bad_msrs: bool = False) -> None:
        self.model = model
        self._ignores = ignores_bad_msrs
        self._owner = os.getpid()
        self.folder = tempfile.mkdtemp(prefix="conformance-bochs-")
        self.serial, serial = os.openpty()
        self.screen, screen = os.openpty()
        tty.setraw(serial)
        self.process: subprocess.Popen[bytes] | None = None
        self.log = Path(self.folder, "log").open("w+", errors="replace")  # noqa: SIM115 - as long as the process
        """What it writes down."""
        self.wp = self.cet = False
        """CR0.WP and CR4.CET after the last request."""
        try:
            self._write_files(os.ttyname(serial))
            self.process = subprocess.Popen(
                ["bochs", "-q", "-f", "rc", "-rc", "cont"],  # noqa: S607 - the one that PATH has
                cwd=self.folder,
                stdin=screen,
                stdout=screen,
                stderr=screen,
                env={**os.environ, "TERM": "xterm"},
                process_group=0,
                preexec_fn=partial(die_with, os.getpid()),  # noqa: PLW1509 - it takes no lock
            )
            self._reply(time.monotonic() + BOOTING, 2, UP)
            shutil.rmtree(self.folder, ignore_errors=True)
        except BaseException:
            self.close()
            raise
        finally:
            os.close(serial)
            os.close(screen)

    def _write_files(self, serial: str) -> None:
        folder = Path(self.folder)
        (folder / "rom.bin").write_bytes(rom())
        (folder / "vga.bin").write_bytes(vga_rom())
        ignored = int(self._ignores)
        text = CONFIGURATION.format(model=self.model, ips=IPS, folder=folder, serial=serial, ignored=ignored)
        (folder / "rc").write_text(text)
        (folder / "cont").write_text("c\n")

    def ask(self, request: int, argument: int = 0, value: int = 0) -> tuple[int, bytes]:
        """(vector of the fault or 0, what the request reads); `wp` and `cet` are seen with each."""
        shape = SHAPES[request]
        line = bytes([request | shape])
        line += struct.pack("<I", argument) if shape & ARGUMENT else b""
        line += struct.pack("<Q", value) if shape & VALUE else b""
        try:
            os.write(self.serial, line)
        except OSError:
            raise self._dead("ended") from None
        self._signal(signal.SIGCONT)
        try:
            return self._reply(time.monotonic() + PATIENCE, 2 + (8 if shape & DATA8 else 16 if shape & DATA16 else 0))
        finally:
            self._signal(signal.SIGSTOP)

    def _signal(self, number: int) -> None:
        """It stands still between two requests: its guest would poll the serial line, and wear the machine out."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def _reply(self, deadline: float, size: int, wanted: int | None = None) -> tuple[int, bytes]:
        told = b""
        while len(told) < size:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.serial, self.screen], [], [], min(max(left, 0), GLANCE))
            if not ready and left <= 0:
                raise self._dead(f"did not answer, {len(told)} bytes came")
            with contextlib.suppress(OSError):  # a terminal whose other end is closed
                if self.screen in ready:
                    os.read(self.screen, 65536)
            if self.serial in ready:
                try:
                    told += os.read(self.serial, size - len(told))
                except OSError:
                    raise self._dead("ended") from None
            elif self.process is not None and self.process.poll() is not None:
                raise self._dead("ended")
        flags, vector, data = told[0], told[1], told[2:]
        self.wp, self.cet = bool(flags & 1), bool(flags & 2)
        if wanted is not None and vector != wanted:
            raise self._dead(f"came up with {vector:#x}")
        return vector, data

    @property
    def alive(self) -> bool:
        """Whether it can be asked by this process."""
        return self._owner == os.getpid() and self.process is not None and self.process.poll() is None

    def _dead(self, how: str) -> Dead:
        if self.process is not None:  # one that does not answer is of no use either
            self.process.kill()
            self.process.wait(PATIENCE)
        self.log.seek(0)
        last = [line for line in self.log.read().splitlines()[-400:] if ">>PANIC<<" in line or "e]" in line]
        return Dead(f"Bochs, model {self.model}, {how}" + (f": {last[-1]}" if last else ""))

    def close(self) -> None:
        """End the process and forget its files; a copy of this in a forked process lets it be."""
        atexit.unregister(self.close)
        if self.process is not None and self._owner == os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):  # it is killed, and the machine is slow
                self.process.wait(PATIENCE)
            self.process = None
        for fd in (self.serial, self.screen):
            if fd >= 0:
                os.close(fd)
        self.serial = self.screen = -1
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


_running: dict[str, Bochs] = {}


def machine(model: str) -> Bochs:
    """The one of this process with that CPU, cleaned for each world; started when first asked for, or dead."""
    found = _running.get(model)
    if found is None or not found.alive:
        if found is not None:
            found.close()
        found = _running[model] = Bochs(model)
        atexit.register(found.close)
    return found


def end_all() -> None:
    """End those of this process."""
    for found in _running.values():
        found.close()
    _running.clear()
