"""The headers of the C ABI say what the Python ports say, and what passes through them stays what it was."""

from __future__ import annotations

import errno
import importlib
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from conformance.abi import modes
from conformance.abi.header import FOLDER, header, numbers, read
from conformance.abi.modes import cache_folder, mode
from conformance.abi.plan import MismatchError, of_subsystem
from conformance.candidates.builtin.avic.kvm_lapic import KvmLapic
from conformance.candidates.builtin.uio_msi.upstream import Upstream
from conformance.candidates.load import defects, load
from conformance.engines import corpus
from conformance.engines.context import lacking
from conformance.lockstep import run_trace
from conformance.ports import methods
from conformance.subsystem import NAMES, Subsystem, subsystem
from conformance.verdict import UsageError
from tests.loopback import loopback

everywhere = pytest.mark.parametrize("name", NAMES)
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")

CHANGES = [
    ("int (*ioctl)(void *self, u32 cmd, u64 arg);", "int (*ioctl)(void *self, u32 cmd);", "ioctl"),
    ("int (*ioctl)(void *self, u32 cmd, u64 arg);", "int (*ioctl)(void *self, u32 command, u64 arg);", "ioctl"),
    ("int (*ioctl)(void *self, u32 cmd, u64 arg);", "int (*ioctl)(void *self, u32 cmd, bool arg);", "ioctl"),
    ("int (*ioctl)(void *self, u32 cmd, u64 arg);", "void (*ioctl)(void *self, u32 cmd, u64 arg);", "ioctl"),
    ("int (*ioctl)(void *self, u32 cmd, u64 arg);", "", "ioctl"),
    ("void (*kfree)(void *world, u64 token);", "int (*kfree)(void *world, u64 token);", "kfree"),
    ("void (*dev_err)(void *world, const char *text);", "void (*dev_err)(void *world, u64 text);", "dev_err"),
    ("const u32 *entries, size_t entries_len);", "const u32 *entries, int entries_len);", "pci_enable_msix"),
    ("	u64 offs;", "", "uio_register_device"),
]
"""(text of uio_msi.h, what it is replaced by, what is then said to be wrong)."""


@everywhere
def test_a_header_agrees_with_the_port(name: str) -> None:
    """Each method has its function, in the same order, with the same names, and types that carry the same values."""
    of, found = subsystem(name), header(name)

    calls, entries = of_subsystem(found, of)

    assert list(calls) == list(methods(of.port))
    assert list(entries)[: len(methods(of.candidate))] == list(methods(of.candidate))


@pytest.mark.parametrize(("there", "instead", "says"), CHANGES)
def test_a_header_that_differs_is_noticed(there: str, instead: str, says: str) -> None:
    """In a name, a type, a number of arguments, a field of a record, or a function that is gone."""
    text = (FOLDER / "uio_msi.h").read_text()
    assert there in text

    with pytest.raises(MismatchError, match=says):
        of_subsystem(read("uio_msi", text.replace(there, instead, 1)), subsystem("uio_msi"))


@everywhere
def test_the_numbers_are_those_of_the_specification(name: str) -> None:
    """All of them, but for errnos, which the C library has."""
    module = vars(importlib.import_module(f"conformance.specs.{name}.constants"))
    wanted = {n: value for n, value in module.items() if n.isupper() and type(value) is int and not hasattr(errno, n)}

    assert numbers((FOLDER / f"{name}_constants.h").read_text()) == wanted


@everywhere
def test_every_function_is_explained(name: str) -> None:
    """A comment stands before each one, so that the header is the port's documentation."""
    lines = (FOLDER / f"{name}.h").read_text().splitlines()

    bare = [
        line.strip()
        for before, line in pairwise(lines)
        if line.startswith("\t") and "(*" in line and not before.endswith("*/")
    ]

    assert not bare


@needs_compiler
@everywhere
def test_a_header_is_plain_c99(name: str, tmp_path: Path) -> None:
    """By itself, without a warning."""
    source = tmp_path / "alone.c"
    source.write_text(f'#include "{name}.h"\n#include "{name}_constants.h"\nint x;\n')

    done = subprocess.run(
        ["cc", "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{FOLDER}", source],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


def traces(of: Subsystem) -> list[tuple[Any, Any]]:
    """(defect, the trace that is shipped for it)."""
    zoo = {defect.id: load(f"builtin:{defect.id}", of) for defect in defects(of.name) if defect.candidate is not None}
    found = []
    for path in corpus.files(corpus.SHIPPED / of.name):
        of_it = [i for i in zoo if path.name.startswith(f"{i}-")]
        trace = corpus.read(path)
        if of_it and not lacking(of, trace, zoo[of_it[0]].capabilities):
            found.append((zoo[of_it[0]], trace))
    return found


@needs_compiler
@everywhere
def test_a_candidate_behind_the_abi_gets_the_same_verdict(name: str) -> None:
    """Every defect of the zoo on its trace, called through both tables: same signature, same step."""
    of, way = subsystem(name), mode(name)
    differ = []
    for candidate, trace in traces(of):
        there = run_trace(of, trace, candidate.factory).failure
        behind = run_trace(of, trace, loopback(candidate.factory, way)).failure
        if (there and (there.signature, there.step)) != (behind and (behind.signature, behind.step)):
            differ.append((candidate.spec, there, behind))

    assert not differ


class Deaf(KvmLapic):
    """It tells of no vector that an eventfd delivers."""

    def irqfds(self, acts: Any) -> Any:
        return tuple((result, ()) for result, _ in super().irqfds(acts))


@needs_compiler
@pytest.mark.parametrize("candidate", [KvmLapic, Deaf])
def test_eventfds_behind_the_abi_get_the_same_verdict(candidate: type) -> None:
    """On what is kept of real kernels: right and wrong are told apart."""
    of, way, seen = subsystem("avic"), mode("avic"), set()

    for path in (corpus.SHIPPED / "avic" / "real").glob("kvm_lapic-irqfd-*.json"):
        trace = corpus.read(path)
        there = run_trace(of, trace, candidate).failure
        behind = run_trace(of, trace, loopback(candidate, way)).failure
        assert (there and (there.signature, there.step)) == (behind and (behind.signature, behind.step))
        seen.add(there and there.clause.id)

    assert seen == ({None} if candidate is KvmLapic else {None, "AVIC-120", "AVIC-121"})


@needs_compiler
@pytest.mark.parametrize("choice", ["compiled", "callbacks"])
def test_a_breach_in_the_constructor_is_left_as_any_other(
    choice: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What leaves the candidate ends before C's frames, so that cffi has nothing to complain of."""

    class Frees(Upstream):
        def __init__(self, port: Any) -> None:
            port.kfree(99)
            super().__init__(port)

    monkeypatch.setenv(modes.CHOICE, choice)
    of, way = subsystem("uio_msi"), modes.mode.__wrapped__("uio_msi")
    trace = corpus.read(corpus.files(corpus.SHIPPED / "uio_msi")[0])
    there = run_trace(of, trace, Frees).failure
    behind = run_trace(of, trace, loopback(Frees, way)).failure

    assert there is not None
    assert behind is not None
    assert (behind.signature, behind.step) == (there.signature, there.step)
    assert capfd.readouterr().err == ""


def test_callbacks_do_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One sentence says that it is slower, and the verdicts are the same."""
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(modes.CHOICE, raising=False)
    of = subsystem("uio_msi")

    way = modes.mode.__wrapped__("uio_msi")

    assert (way.name, way.note) == (
        "callbacks",
        "it runs slower than it could: there is no C compiler 'no-such-compiler'",
    )
    for candidate, trace in traces(of)[:10]:
        there = run_trace(of, trace, candidate.factory).failure
        behind = run_trace(of, trace, loopback(candidate.factory, way)).failure
        assert (there and there.signature) == (behind and behind.signature)


def test_what_is_asked_for_and_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody measures the slow way and takes it for the fast one."""
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(modes.CHOICE, "compiled")

    with pytest.raises(UsageError, match="CONFORMANCE_ABI=compiled: there is no C compiler"):
        modes.mode.__wrapped__("uio_msi")


@needs_compiler
def test_the_module_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time it comes from the user's cache, without a compiler's being asked."""
    mode("uio_msi")
    there = sorted(cache_folder().iterdir())

    monkeypatch.setattr(modes, "_run", lambda _: pytest.fail("compiled again"))
    again = modes.mode.__wrapped__("uio_msi")

    assert again.name == "compiled"
    assert sorted(cache_folder().iterdir()) == there
