"""Programs that need only the kernel, run in the kernels that findings name and in those that are said to be right."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conformance.real.guest import kvm, packages
from conformance.real.guest.channel import AT_FDCWD, Answer, Back, Gone, call
from conformance.real.guest.machine import Guest, Machine, qemu_version
from tests.kernels import needs

SOURCES = Path(__file__).parents[3] / "examples" / "real"
KERNELS = ("6.1", "6.12", "6.18", "7.2")
RIGHT, WRONG, NOT_THERE = 0, 1, 77
FINDINGS = {
    "kvm_isr": ("KVM-1", False, dict.fromkeys(KERNELS, RIGHT), "ISR[0x51] = 1 (expected 1)"),
    "kvm_window": ("KVM-3", False, dict.fromkeys(KERNELS, RIGHT), "to port 0x10"),
    "kvm_avic": (
        "LINUX-1, LINUX-3, LINUX-8 and LINUX-9", True, {**dict.fromkeys(KERNELS, 23), "6.1": 15},
        "entry 0 names another page",
    ),
    "kvm_tpr": ("LINUX-2", True, dict.fromkeys(KERNELS, WRONG), "TPR is 0xf0"),
    "kvm_prefault": (
        "LINUX-4", False, {"6.1": NOT_THERE, "6.12": WRONG, "6.18": RIGHT, "7.2": RIGHT}, "the prefault did not end",
    ),
    "kvm_writable": (
        "LINUX-6", False, {"6.1": NOT_THERE, "6.12": WRONG, "6.18": RIGHT, "7.2": RIGHT}, "after a prefault 0",
    ),
}  # fmt: skip
"""By program: the finding, whether it wants AVIC, the exit code by kernel, and what the finding says.

What is said is printed where the finding is about that kernel, or where no kernel is wrong.
"""
OF_EMULATORS = {"qemu_int3": "QEMU-1"}
"""By program: the finding. The emulator ends with its guest's kernel, so it has a test of its own."""
CREATED = 0o1101
"""O_WRONLY, O_CREAT and O_TRUNC."""
_PIECE, _PATIENCE = 1 << 14, 30_000


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """Programs by name, compiled so that they need no library."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler on this machine")
    folder = tmp_path_factory.mktemp("programs")

    def made(name: str) -> bytes:
        if not (folder / name).is_file():
            command: list[str | Path] = [
                compiler,
                "-O1",
                "-static",
                "-pthread",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-o",
                folder / name,
                SOURCES / f"{name}.c",
            ]
            subprocess.run(command, check=True, timeout=60)
        return (folder / name).read_bytes()

    return made


@pytest.fixture(scope="module", params=KERNELS)
def series(request: pytest.FixtureRequest) -> str:
    """A kernel of the cache."""
    name: str = request.param
    needs(name)
    return name


@pytest.fixture(scope="module")
def guests(series: str) -> Iterator[dict[bool, Guest]]:
    """Guests of that kernel, with AVIC forced on and as it comes: an emulated processor has no AVIC to deliver with."""
    kernel = packages.kernel(series)
    plain = Machine(kernel=kernel, modules=("kvm_amd",), cpu="EPYC,+svm,family=25")
    made = {
        avic: Guest(machine, prepare=kvm.hold_vm) for avic, machine in ((True, kvm.machine(kernel, 1)), (False, plain))
    }
    yield made
    for guest in made.values():
        guest.close()


def ran(guest: Guest, program: bytes) -> Answer:
    """What a program in a guest printed, and its exit code."""
    pieces = [program[at : at + _PIECE] for at in range(0, len(program), _PIECE)]
    writes = [call("write", Back(n + 1), piece, len(piece)) for n, piece in enumerate(pieces)]
    guest.channel.must_all([
        call("openat", AT_FDCWD, "/program", CREATED, 0o700), *writes, call("close", Back(len(pieces) + 1)),
    ])  # fmt: skip
    return guest.channel.one(f"q /program {_PATIENCE}")


@pytest.mark.parametrize("name", FINDINGS)
def test_a_finding_is_shown_where_it_is_and_nowhere_else(
    series: str, guests: dict[bool, Guest], name: str, program: Callable[[str], bytes]
) -> None:
    """By exit code, and in words."""
    _, wants_avic, codes, words = FINDINGS[name]

    told = ran(guests[wants_avic], program(name))

    assert told.value == codes[series], told
    is_said = codes[series] not in (RIGHT, NOT_THERE) or set(codes.values()) == {RIGHT}
    assert (words in b"".join(told.data).decode()) == is_said, told


def test_every_program_is_asked() -> None:
    """None is shipped that nobody runs."""
    assert {path.stem for path in SOURCES.glob("*.c")} == FINDINGS.keys() | OF_EMULATORS


@pytest.mark.parametrize("name", [*FINDINGS, *OF_EMULATORS])
def test_a_finding_names_its_program(name: str) -> None:
    """In the list, and the program names the finding."""
    findings = (SOURCES.parents[1] / "docs" / "findings.md").read_text()
    source = (SOURCES / f"{name}.c").read_text()

    assert f"examples/real/{name}.c" in findings
    finding = OF_EMULATORS[name] if name in OF_EMULATORS else FINDINGS[name][0]
    assert f" * {finding}: " in source


@pytest.mark.gates
def test_qemu_1_a_breakpoint_that_is_gone_is_met(program: Callable[[str], bytes]) -> None:
    """The kernel of a guest of three processors panics within some seconds, and is asked up to four times."""
    needs("6.12")
    if not re.search(r"version 7\.", qemu_version()):
        pytest.skip("it was seen in QEMU 7.2; another may be right")
    for _ in range(4):
        guest = Guest(kvm.machine(packages.kernel("6.12"), 3), prepare=kvm.hold_vm)
        try:
            survived = ran(guest, program("qemu_int3"))
        except Gone:
            of_kernel, how = guest.ended()
            break
        finally:
            guest.close()
        assert (survived.value, b"still runs" in survived.data[0]) == (0, True)

    assert of_kernel
    assert "Oops: int3" in how


def test_a_program_that_does_not_end_is_killed(guests: dict[bool, Guest]) -> None:
    """And what it printed is there."""
    guest = guests[False]
    lines = b"#!/bin/busybox sh\necho begun\nwhile :; do :; done\n"
    guest.channel.must_all([
        call("openat", AT_FDCWD, "/program", CREATED, 0o700), call("write", Back(1), lines, len(lines)),
        call("close", Back(2)),
    ])  # fmt: skip

    told = guest.channel.one("q /program 500")

    assert told == (128 + 9, (b"begun\n",))
