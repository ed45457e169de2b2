"""The drivers in `examples/c` against those in Python that do the same: equal verdicts on every shipped trace."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.abi.header import FOLDER
from conformance.candidates.load import Candidate, load
from conformance.commands import main as cli
from conformance.engines import corpus
from conformance.engines.context import lacking
from conformance.lockstep import run_trace
from conformance.subsystem import subsystem
from conformance.trace import Trace

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")

EXAMPLES = Path(__file__).parents[2] / "examples" / "c"
STRICT = ("-std=gnu11", "-g", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{FOLDER}")
SANITIZERS = ("-O1", "-fsanitize=address,undefined", "--param", "asan-stack=0", "-fno-sanitize-recover=all")
ADDRESS = ("-O1", "-fsanitize=address", "--param", "asan-stack=0")
"""Alone, where memory is wrong: undefined behaviour would end it first, by another name."""

SAME_AS = {
    "avic": {0: "upstream", 1: "UP-03", 2: "UP-15", 3: "UP-25", 4: "UP-36", 5: "UP-38"},
    "cet": {0: "upstream", 1: "CET-U-02", 2: "CET-U-08", 3: "CET-U-15", 4: "CET-U-18", 5: "CET-U-21"},
    "snp_guest_request": {
        0: "upstream", 1: "SNP-D01", 2: "SNP-D11", 3: "SNP-D19", 4: "SNP-U07", 5: "SNP-V07", 6: "SNP-V11",
    },
    "tdp_mirror": {0: "upstream", 1: "A-01", 2: "A-12", 3: "U-05", 4: "U-09", 5: "N-04", 6: "N-05"},
}  # fmt: skip
"""What each does wrong with -DDEFECT=n, and who does the same in Python."""

MEMORY = {
    "avic": {6: "heap-use-after-free", 7: "heap-buffer-overflow", 8: "SEGV"},
    "cet": {6: "heap-use-after-free", 8: "heap-buffer-overflow", 9: "SEGV"},
    "tdp_mirror": {7: "heap-use-after-free", 8: "heap-buffer-overflow", 9: "SEGV"},
    "snp_guest_request": {7: "double-free", 9: "heap-buffer-overflow", 10: "SEGV"},
}
"""Errors of memory, and what the address sanitizer calls them."""

Build = Callable[..., Path]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Compiles each driver once for each defect and set of options."""
    folder = tmp_path_factory.mktemp("drivers")

    def built(name: str, defect: int, *options: str) -> Path:
        path = folder / f"{name}-{defect}{'-sanitized' if options else ''}.so"
        if not path.exists():
            source = EXAMPLES / name / f"{name}.c"
            subprocess.run(["cc", *STRICT, f"-DDEFECT={defect}", *options, "-o", path, source], check=True)
        return path

    return built


def shipped(candidate: Candidate, name: str) -> dict[str, Trace]:
    """The traces that are shipped, of those that the candidate has what they need for, under its profile."""
    of = subsystem(name)
    traces = {path.name: corpus.read(path) for path in corpus.files(corpus.SHIPPED / name)}
    return {
        where: replace(trace, profile=candidate.profile)
        for where, trace in traces.items()
        if not lacking(of, trace, candidate.capabilities)
    }


@pytest.mark.parametrize(("name", "defect"), [(name, n) for name, same in SAME_AS.items() for n in same])
def test_a_driver_in_c_gets_the_verdicts_of_the_same_in_python(build: Build, name: str, defect: int) -> None:
    """The same signature, at the same step; and the wrong one shows in some trace."""
    of = subsystem(name)
    in_c, in_python = load(f"lib:{build(name, defect)}", of), load(f"builtin:{SAME_AS[name][defect]}", of)
    assert (in_c.profile, in_c.capabilities) == (in_python.profile, in_python.capabilities)
    differ, seen = {}, set()
    for where, trace in shipped(in_c, name).items():
        there, here = (run_trace(of, trace, candidate.factory).failure for candidate in (in_python, in_c))
        if (there and (there.signature, there.step)) != (here and (here.signature, here.step)):
            differ[where] = (there, here)
        seen |= {here.signature} if here else set()

    assert differ == {}
    assert bool(seen) == bool(defect)


@pytest.fixture
def sanitizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that are started have the address sanitizer in them."""
    told = subprocess.run(["cc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    if not Path(told.stdout.strip()).is_absolute():
        pytest.skip("the compiler has no address sanitizer")
    monkeypatch.setenv("LD_PRELOAD", f"{told.stdout.strip()} libstdc++.so.6")
    monkeypatch.setenv("ASAN_OPTIONS", "detect_leaks=0")


@pytest.mark.usefixtures("sanitizer")
@pytest.mark.parametrize(("name", "defect"), [(name, n) for name, errors in MEMORY.items() for n in (0, *errors)])
def test_an_error_of_memory_is_a_finding(
    build: Build, name: str, defect: int, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With the sanitizer's name for it, against the clause on robustness; the correct driver has none."""
    spec = f"lib:{build(name, defect, *(ADDRESS if defect else SANITIZERS))}"
    engine = "corpus,explore" if defect else "corpus"
    code = cli.invoke(
        ["run", name, "--candidate", spec, "--engine", engine, "-x", "-n", "1", "--traces", str(tmp_path)]
    )

    out, _ = capsys.readouterr()
    assert "violated by" in out if defect else "broken" not in out
    if defect:
        assert code == 1
        assert f"{subsystem(name).robustness.id} violated by" in out
        assert MEMORY[name][defect] in out
