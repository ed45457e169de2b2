"""Traces as programs: they fail on the defect, pass on a correct candidate, and can be read."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance.abi.__main__ import SHIM, flags
from conformance.abi.header import FOLDER
from conformance.candidates.load import defects, load
from conformance.candidates.process import Instance
from conformance.commands import main as cli
from conformance.commands import repro as command
from conformance.engines import corpus
from conformance.machines.play import Broken
from conformance.repro import c, python
from conformance.repro.events import recorded
from conformance.repro.reference import reference
from conformance.subsystem import available, subsystem
from conformance.trace import Trace
from conformance.verdict import Exit, UsageError

EACH = 12
"""Of so many shipped traces of defects one is taken."""
FIRST = "UIO-D02-UIO-049-Open-result.json"
CALLS = "UIO-D12-UIO-084-Remove-should.json"
UIO = subsystem("uio_msi")


def shipped() -> list[Path]:
    """Some traces of defects; what hangs costs seconds."""
    paths = [path for name in available() for path in sorted((corpus.SHIPPED / name).glob("[!v]*.json"))]
    return [path for number, path in enumerate(paths) if number % EACH == 0 and "-hang" not in path.name]


def ran(program: str, candidate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test that a program has, on a candidate."""
    monkeypatch.setenv("CANDIDATE", candidate)
    scope: dict[str, Any] = {}
    exec(compile(program, "repro.py", "exec"), scope)  # noqa: S102 - it is what is tested
    (test,) = [value for name, value in scope.items() if name.startswith("test_")]
    test()


def defect(path: Path) -> str:
    """Whose trace it is."""
    known = sorted((d.id for d in defects(path.parent.name)), key=len, reverse=True)
    return next(identifier for identifier in known if path.name.startswith(f"{identifier}-"))


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.stem)
def test_round_trip(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails on the defect, for the clause that the trace is of, and passes where all is well."""
    monkeypatch.chdir(tmp_path)
    trace = corpus.read(path)
    of = subsystem(trace.subsystem)
    spec = f"builtin:{defect(path)}"
    right = reference(of, trace)

    program = python.program(command._case(path, trace, of, spec))

    clause = command.named(path, of)
    assert clause is not None
    assert clause.id in program
    with pytest.raises((Broken, AssertionError)) as raised:
        ran(program, spec, monkeypatch)
    assert not isinstance(raised.value, Broken) or f"{clause.id} " in str(raised.value)
    if right is None:
        pytest.skip("no shipped candidate takes this trace without a fault")
    ran(program, right.spec, monkeypatch)


def test_it_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    """Clause, sentence, source, steps, refusals and results, as a person would write them."""
    path = corpus.SHIPPED / "uio_msi" / FIRST

    code = cli.invoke(("repro", str(path), "--candidate", "builtin:UIO-D02"))
    out = capsys.readouterr().out

    assert code == 0
    assert out.splitlines()[:4] == [
        '"""open returns 0 or a negative errno, never a positive value.',
        "",
        "Clause UIO-049 (MUST), from: fs/open.c do_dentry_open",
        "Broken by builtin:UIO-D02 at step 2 of 2, found as UIO-049:Open:result.",
    ]
    assert "    assert play(Probe()) == 0\n" in out
    assert "    play(Step(op=Open(), faults=(Fault(call='pci_enable_msix', value=1),)))" in out


@pytest.mark.parametrize(
    "spec",
    [r"""cmd:python "my driver.py" --odd='\n'""", 'cmd:sh -c """true"""', "cmd:sh -c 'read line\ncat hello'"],
)
def test_the_candidate_is_named_as_it_was_given(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quotes, backslashes and ends of lines stay what they are."""
    monkeypatch.delenv("CANDIDATE", raising=False)
    path = corpus.SHIPPED / "uio_msi" / FIRST
    case = command._case(path, corpus.read(path), UIO, "builtin:UIO-D02")
    scope: dict[str, Any] = {}

    exec(compile(python.program(replace(case, spec=spec)), "repro.py", "exec"), scope)  # noqa: S102 - it is tested

    assert scope["CANDIDATE"] == spec
    assert f"Broken by {spec} at step 2 of 2" in scope["__doc__"]


def test_it_is_written_where_it_is_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And the last line says how it is run."""
    out = tmp_path / "test_it.py"

    code = cli.invoke(("repro", str(corpus.SHIPPED / "uio_msi" / FIRST), "-o", str(out)))

    assert code == Exit.CONFORMS
    assert capsys.readouterr().out == f"exit 0: {out} is written: pytest {out}\n"
    assert "def test_uio_049() -> None:" in out.read_text()


def test_who_does_not_fail_cannot_be_blamed(capsys: pytest.CaptureFixture[str]) -> None:
    """The trace must show something on the candidate that is named."""
    code = cli.invoke(("repro", str(corpus.SHIPPED / "uio_msi" / FIRST), "--candidate", "builtin:upstream"))

    assert code == Exit.USAGE
    assert "builtin:upstream does not fail in it" in capsys.readouterr().err


@pytest.mark.parametrize("name", available())
def test_results_of_the_reference_are_those_of_the_model(name: str) -> None:
    """Every step that is taken has its result among those allowed, if these are listed."""
    of = subsystem(name)
    path = corpus.files(corpus.SHIPPED / name)[-1]
    trace: Trace = corpus.read(path)

    right = reference(of, trace)

    assert right is not None
    assert all(step.result in step.allowed for step in right.steps if step.allowed)


# -- in C

ROOT = Path(__file__).resolve().parents[2]
IN_C = {"UIO-D01": 1, "UIO-D05": 2, "UIO-D19": 7, "UIO-U16": 4}
"""Defects that the driver in examples/c has as well, by its own number."""
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


def in_c(path: Path) -> str:
    """The program of a defect's shipped trace."""
    pytest.importorskip("cffi")
    trace = corpus.read(path)
    return c.program(command._case(path, trace, subsystem(trace.subsystem), f"builtin:{defect(path)}"))


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Path]]:
    """The driver in C as it should be and with each defect, compiled, with what it is linked with."""
    folder = tmp_path_factory.mktemp("objects")
    given = [flag for flag in flags("uio_msi", shim=True) if flag != "-shared" and not flag.endswith(".c")]
    sources = [(SHIM / "shim_uio_msi.c", 0), (SHIM / "statics.c", 0)]
    sources += [(ROOT / "examples" / "c" / "uio_msi" / "uio_msi.c", number) for number in (0, *IN_C.values())]
    made = []
    for source, number in sources:
        made.append(folder / f"{source.stem}{number}.o")
        subprocess.run(["cc", *given, f"-DDEFECT={number}", "-c", "-o", made[-1], source], check=True)
    return {number: [*made[:2], one] for one, (_, number) in zip(made[2:], sources[2:], strict=True)}


@needs_compiler
@pytest.mark.parametrize("name", IN_C)
def test_the_program_in_c_fails_on_the_defect_alone(name: str, objects: dict[int, list[Path]], tmp_path: Path) -> None:
    """Linked with the driver in C, with the defect and without; it needs no Python."""
    (path,) = (corpus.SHIPPED / "uio_msi").glob(f"{name}-*.json")
    (tmp_path / "repro.c").write_text(in_c(path))
    codes = []
    for number in (0, IN_C[name]):
        program = tmp_path / f"repro{number}"
        command_ = ["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", f"-I{FOLDER}", "-o", program, tmp_path / "repro.c"]
        subprocess.run([*command_, *objects[number]], check=True)
        codes.append(subprocess.run([program], capture_output=True, env={}, check=False).returncode)

    assert codes[0] == 0
    assert codes[1] != 0


@needs_compiler
@pytest.mark.parametrize("name", available())
def test_the_program_in_c_compiles(name: str, tmp_path: Path) -> None:
    """For every subsystem, whose header it includes, without a warning."""
    for path in sorted((corpus.SHIPPED / name).glob("[!v]*.json"))[1:]:
        try:
            text = in_c(path)
            break
        except UsageError as error:
            assert "take --lang pytest" in str(error) or "no shipped candidate" in str(error)  # noqa: PT017 - either way
    (tmp_path / "repro.c").write_text(text)

    command_ = ["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", f"-I{FOLDER}", "-c", "-o", "repro.o", "repro.c"]
    subprocess.run(command_, cwd=tmp_path, check=True)

    clause = named_in(path, name)
    assert f"/*\n * {clause}: " in text


@needs_compiler
def test_lists_in_lists_are_written_in_c(tmp_path: Path) -> None:
    """What is done with eventfds has tables in it."""
    path = corpus.SHIPPED / "avic" / "real" / "kvm_lapic-irqfd-pending.json"
    trace, of = corpus.read(path), subsystem("avic")
    (tmp_path / "repro.c").write_text(c.program(command._case(path, trace, of, None)))

    command_ = ["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", f"-I{FOLDER}", "-c", "-o", "repro.o", "repro.c"]
    subprocess.run(command_, cwd=tmp_path, check=True)

    assert '"assign", 0x0ULL, ' in (tmp_path / "repro.c").read_text()


@needs_compiler
def test_the_command_that_is_said_links_whatever_the_library_was_built_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kernel code has more than one source; its library is named without a folder."""
    pytest.importorskip("cffi")
    monkeypatch.chdir(tmp_path)
    name, number = next(iter(IN_C.items()))
    source = ROOT / "examples" / "c" / "uio_msi" / "uio_msi.c"
    subprocess.run(["cc", *flags("uio_msi", shim=True), f"-DDEFECT={number}", "-o", "mine.so", source], check=True)
    (path,) = (corpus.SHIPPED / "uio_msi").glob(f"{name}-*.json")
    code = cli.invoke(("repro", str(path), "--lang", "c", "--candidate", "lib:mine.so", "-o", "repro.c"))
    out, err = capsys.readouterr()
    said = out.strip().partition(": repro.c is written: ")[2]

    done = subprocess.run(["/bin/sh", "-c", said], capture_output=True, text=True, check=False)

    assert code == Exit.CONFORMS, err
    assert (done.returncode, "broken: UIO-" in done.stdout) == (1, True), done.stderr


def named_in(path: Path, name: str) -> str:
    """The id of the clause that a shipped trace is of."""
    clause = command.named(path, subsystem(name))
    assert clause is not None
    return clause.id


def test_a_process_is_told_in_c_as_the_class_is(capsys: pytest.CaptureFixture[str]) -> None:
    """What it calls is recorded through the conversation, and the program is the same."""
    pytest.importorskip("cffi")
    path = corpus.SHIPPED / "uio_msi" / CALLS
    process = f"cmd:{sys.executable} -m conformance.wire.serve uio_msi builtin:UIO-D12"
    told = []
    for spec in ("builtin:UIO-D12", process):
        assert cli.invoke(("repro", str(path), "--lang", "c", "--candidate", spec)) == Exit.CONFORMS
        told.append(capsys.readouterr().out)

    assert told[0] == told[1]
    assert "limits[] = {\n\t{ NULL" not in told[0]


def test_what_is_recorded_of_a_process_ends_with_the_trace() -> None:
    """It is told to forget each instance, though somebody stands between it and the door."""
    trace = corpus.read(corpus.SHIPPED / "uio_msi" / CALLS)
    candidate = load(f"cmd:{sys.executable} -m conformance.wire.serve uio_msi builtin:upstream", UIO)
    made: list[Instance] = []

    def keeping(port: Any) -> Any:
        made.append(candidate.factory(port))
        return made[-1]

    recorded(UIO, trace, keeping)

    assert [instance.number for instance in made] == [0]
    candidate.factory.end()  # type: ignore[attr-defined]  # a process has it


def test_two_things_at_once_cannot_be_told_in_c(capsys: pytest.CaptureFixture[str]) -> None:
    """A table has no schedule; one sentence says what can."""
    (path,) = (corpus.SHIPPED / "uio_msi").glob("UIO-U13-*.json")

    code = cli.invoke(("repro", str(path), "--lang", "c"))

    assert code == Exit.USAGE
    assert capsys.readouterr().err.endswith(
        "two things at once cannot be told by a table of answers; take --lang pytest\n"
    )
