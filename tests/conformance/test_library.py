"""Drivers in C: what their libraries must be, and that they get the verdicts of the same drivers in Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from conformance.abi import modes
from conformance.abi.__main__ import compile_example, main
from conformance.abi.header import FOLDER, header
from conformance.abi.modes import callbacks, mode
from conformance.candidates.library import bind
from conformance.candidates.load import load
from conformance.commands import main as cli
from conformance.engines import corpus
from conformance.environment.door import Frame
from conformance.environment.scheduler import Scheduler
from conformance.environment.uio_msi import FAST
from conformance.lockstep import run_trace
from conformance.model import avic
from conformance.model.avic.operations import Act, Irqfds
from conformance.model.step import Parallel, Step
from conformance.model.uio_msi import Config
from conformance.model.uio_msi.operations import Close, Open, Probe, Remove
from conformance.ports import methods
from conformance.subsystem import subsystem
from conformance.verdict import UsageError
from tests.conformance.avic.judging import AVIC, cited, judged

ROOT = Path(__file__).parents[2]
OF = subsystem("uio_msi")
SHIPPED = corpus.files(corpus.SHIPPED / "uio_msi")

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")

SAME_AS = {0: "upstream", 1: "UIO-D01", 5: "UIO-U14", 6: "UIO-U13", 7: "UIO-D19", 8: "UIO-D16"}
"""What the example does wrong with -DDEFECT=n, where the process survives it, and who does the same in Python."""
ENDS = {
    2: ("UIO-D05", "UIO-078:Probe:crash"),
    3: ("UIO-D07", "UIO-078:Remove:crash"),
    4: ("UIO-U16", "UIO-078:"),
    11: ("UIO-D36", "UIO-078:Remove:crash"),
}
"""What ends the process: the defect whose shipped trace meets it, and the signature."""

Build = Callable[..., Path]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Compiles the example once for each defect and set of options."""
    folder = tmp_path_factory.mktemp("c")

    def built(defect: int = 0, *options: str) -> Path:
        path = folder / f"uio_msi-{defect}{'-'.join(options)}.so".replace(",", "-").replace("=", "-")
        if not path.exists():
            compile_example("uio_msi", path, f"-DDEFECT={defect}", *options)
        return path

    return built


def library(tmp_path: Path, text: str, *options: str) -> Path:
    """A library of a few lines."""
    source, made = tmp_path / "few.c", tmp_path / "few.so"
    source.write_text(f'#include "uio_msi.h"\n#include <stdlib.h>\n{text}\n')
    subprocess.run(["cc", "-shared", "-fPIC", *options, f"-I{FOLDER}", "-o", made, source], check=True)
    return made


WHOLE = """
static void *create(const struct uio_msi_env *env, void *world) { (void)env; return world; }
static void destroy(void *self) { (void)self; }
static int zero(void *self) { (void)self; return 0; }
static void nothing(void *self) { (void)self; }
static int probe(void *self, u32 irq, u8 hdr_type, bool is_virtfn) { return 0; }
static int ioctl(void *self, u32 cmd, u64 arg) { return 0; }
static int handler(void *self, u32 irq, u64 dev_id) { return 0; }
const struct uio_msi_driver uio_msi_driver = {
    .abi_version = UIO_MSI_ABI, .capabilities = "", .create = create, .destroy = destroy, .probe = probe,
    .remove = nothing, .open = zero, .release = zero, .ioctl = ioctl, .handler = handler,
};
"""


@pytest.mark.parametrize("defect", SAME_AS)
def test_a_driver_in_c_gets_the_verdicts_of_the_same_in_python(build: Build, defect: int) -> None:
    """On every shipped trace: the same signature, at the same step."""
    in_c, in_python = load(f"lib:{build(defect)}", OF), load(f"builtin:{SAME_AS[defect]}", OF)
    differ = {}
    for path in SHIPPED:
        trace = corpus.read(path)
        there, here = (run_trace(OF, trace, candidate.factory).failure for candidate in (in_python, in_c))
        if (there and (there.signature, there.step)) != (here and (here.signature, here.step)):
            differ[path.name] = (there, here)

    assert differ == {}


def test_callbacks_give_the_same_verdicts(build: Build) -> None:
    """Also those that a breach does not leave by a jump."""
    of_callbacks = bind("lib:x.so", str(build(7)), OF, callbacks(header("uio_msi"), OF))
    compiled = load(f"lib:{build(7)}", OF).factory
    for path in SHIPPED:
        trace = corpus.read(path)
        there, here = (run_trace(OF, trace, factory).failure for factory in (compiled, of_callbacks))

        assert (there and (there.signature, there.step)) == (here and (here.signature, here.step)), path.name


@pytest.mark.parametrize("defect", ENDS)
def test_a_memory_error_that_ends_the_process_is_a_finding(
    build: Build, defect: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """NULL, and accesses out of bounds: exit code 1, and the clause on robustness."""
    of, signature = ENDS[defect]
    (path,) = [path for path in SHIPPED if path.name.startswith(f"{of}-")]

    code = cli.invoke(["replay", str(path), "--candidate", f"lib:{build(defect)}"])

    out, _ = capsys.readouterr()
    assert code == 1, out
    assert f"{signature.split(':')[0]} violated by" in out


def test_freed_twice_is_seen_without_a_sanitizer(build: Build) -> None:
    """By the suite, since kfree passes through it."""
    (path,) = [path for path in SHIPPED if path.name.startswith("UIO-U17-")]

    failure = run_trace(OF, corpus.read(path), load(f"lib:{build(10)}", OF).factory).failure

    assert failure is not None
    assert failure.signature == "UIO-062:Probe:protocol"


JUDGE = """
import sys
from dataclasses import replace
from conformance.candidates.load import load
from conformance.engines import corpus
from conformance.lockstep import run_trace
from conformance.subsystem import subsystem
of = subsystem("uio_msi")
factory = load(f"lib:{sys.argv[1]}", of).factory
for path in corpus.files(corpus.SHIPPED / "uio_msi"):
    failure = run_trace(of, replace(corpus.read(path), profile="upstream"), factory).failure
    assert failure is None, (path, failure)
print("all the same")
"""


def sanitized(path: object, code: str = JUDGE, cxx: str = "libstdc++.so.6") -> subprocess.CompletedProcess[str]:
    """The shipped traces on a library, or other code, with the address sanitizer in the process."""
    runtime = subprocess.run(["cc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    if not Path(runtime.stdout.strip()).is_absolute():
        pytest.skip("no address sanitizer")
    more = {"LD_PRELOAD": f"{runtime.stdout.strip()} {cxx}", "ASAN_OPTIONS": "detect_leaks=0"}
    return subprocess.run(
        [sys.executable, "-c", code, path],
        cwd=ROOT,
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        check=False,
    )


ASAN = ("-fsanitize=address,undefined", "--param", "asan-stack=0", "-fno-sanitize-recover=all")


def test_the_example_is_clean_under_sanitizers(build: Build) -> None:
    """Address and undefined behaviour, on every shipped trace, two threads at once among them."""
    done = sanitized(build(0, *ASAN))

    assert (done.stdout, done.stderr) == ("all the same\n", "")


def test_stacks_too_on_real_threads(build: Build) -> None:
    """With red zones around the variables of two threads, each on a stack of its own."""
    done = sanitized(f"{build(0, ASAN[0], ASAN[-1])}?threads")

    assert (done.stdout, done.stderr) == ("all the same\n", "")


def test_a_use_after_free_is_named_by_the_sanitizer(build: Build) -> None:
    """With the line of the driver."""
    done = sanitized(build(9, *ASAN))

    assert "use-after-poison" in done.stderr
    assert "uio_msi.c" in done.stderr


def test_a_sanitizer_that_is_not_there_first_is_asked_for(build: Build) -> None:
    """It would end the process."""
    with pytest.raises(
        UsageError, match=r'built with a sanitizer.*LD_PRELOAD="\$\(cc -print-file-name=libasan.so\) lib'
    ):
        load(f"lib:{build(0, *ASAN)}", OF)


THROWS = """
import contextlib
import greenlet
def ends():
    raise KeyError
with contextlib.suppress(KeyError):
    greenlet.greenlet(ends).switch()
print("all the same")
"""


def test_a_sanitizer_is_told_of_exceptions(build: Build) -> None:
    """A thread of a trace that ends by one would end the process, as greenlet throws one of C++."""
    path = build(0, *ASAN)

    assert "must be loaded first, and C++ with it" in sanitized(path, cxx="").stderr
    assert sanitized(path, THROWS).stdout == "all the same\n"


def test_undefined_behaviour_that_goes_on_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is printed, and everything passes all the same."""
    monkeypatch.delenv("UBSAN_OPTIONS", raising=False)
    text = WHOLE.replace("bool is_virtfn) { return 0; }", "bool is_virtfn) { return hdr_type + (int)irq; }")
    goes_on = library(tmp_path, text, "-fsanitize=undefined")
    with pytest.raises(UsageError, match=r"goes on, so that it would pass: .* -fno-sanitize-recover=all"):
        load(f"lib:{goes_on}", OF)
    monkeypatch.setenv("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1")
    assert load(f"lib:{goes_on}", OF).capabilities == frozenset()
    monkeypatch.delenv("UBSAN_OPTIONS")
    ends = library(tmp_path, text, "-fsanitize=undefined", "-fno-sanitize-recover=all")
    assert load(f"lib:{ends}", OF).capabilities == frozenset()


@pytest.mark.parametrize(
    ("there", "instead", "says"),
    [
        (".probe = probe,", "", r"\.probe is NULL, so it is not implemented$"),
        (
            '.capabilities = ""',
            '.capabilities = "compat"',
            r"\.compat_ioctl is NULL.*; add it, or declare \.capabilities without 'compat'",
        ),
        ('.capabilities = ""', '.capabilities = "intx fast"', "uio_msi knows no capability 'fast'"),
        (".abi_version = UIO_MSI_ABI", ".abi_version = 9", "it has version 9 of the ABI, expected 1: compile it with"),
        (".abi_version", '.profile = "vfio", .abi_version', "uio_msi has no profile 'vfio'"),
        (".create = create,", "", r"\.create is NULL, and every driver needs it"),
        ("uio_msi_driver = {", "other = {", "exports no 'uio_msi_driver'; conformance/abi/uio_msi.h says what it is"),
        ("static int zero(", "int missing(void); static int zero(", ""),
    ],
)
def test_what_a_library_lacks_is_said_in_one_sentence(tmp_path: Path, there: str, instead: str, says: str) -> None:
    """And a whole one is loaded."""
    assert there in WHOLE
    made = library(tmp_path, WHOLE.replace(there, instead))

    if not says:
        assert load(f"lib:{made}", OF).capabilities == frozenset()
        return
    with pytest.raises(UsageError, match=says):
        load(f"lib:{made}", OF)


ALL_OF_AVIC = """
#include "avic.h"
static void *create(const struct avic_env *env, void *world) { (void)env; return world; }
static void destroy(void *self) { (void)self; }
static int nothing(void *self) { (void)self; return 0; }
const struct avic_driver avic_driver = {
    .abi_version = AVIC_ABI, .create = create, .destroy = destroy, ENTRIES
};
"""


def test_what_must_be_declared_is_not_taken_for_granted(tmp_path: Path) -> None:
    """A library that says nothing has all that the others have; what it declares it must have."""
    of = subsystem("avic")
    entries = "".join(f".{name} = (void *)nothing, " for name in methods(of.candidate))
    text = ALL_OF_AVIC.replace("ENTRIES", entries)

    assert load(f"lib:{library(tmp_path, text)}", of).capabilities == set(of.capabilities) - {"irqfd"}

    (tmp_path / "declared").mkdir()
    made = library(tmp_path / "declared", text.replace(".create", '.capabilities = "irqfd", .create'))
    with pytest.raises(UsageError, match=r"\.irqfds is NULL, so it is not implemented; add it, or declare"):
        load(f"lib:{made}", of)


IRQFDS = """
#include <string.h>
static void irqfds(void *self, const struct avic_irqfd_act *acts, size_t acts_len,
                   struct avic_irqfd_done *done, size_t *done_len)
{
    static u32 vectors[8];
    size_t i, j, n = 0;
    (void)self;
    for (i = 0; i < acts_len && i < *done_len; i++) {
        done[i].result = strcmp(acts[i].what, "route") ? (s64)acts[i].n - acts[i].fd : -(s64)acts[i].table_len;
        done[i].delivered = vectors + n;
        done[i].delivered_len = acts[i].table_len;
        for (j = 0; j < acts[i].table_len; j++)
            vectors[n++] = acts[i].table[j].vector + acts[i].table[j].gsi;
    }
    *done_len = acts_len;
}
"""


@pytest.mark.parametrize("choice", ["compiled", "callbacks"])
def test_lists_in_lists_pass_both_ways(choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What eventfds do is asked with tables of any length, and answered with as many vectors as there are."""
    monkeypatch.setenv(modes.CHOICE, choice)
    monkeypatch.setattr("conformance.candidates.library.mode", modes.mode.__wrapped__)
    text = ALL_OF_AVIC.replace("const struct avic_driver avic", IRQFDS + "const struct avic_driver avic")
    made = library(tmp_path, text.replace("ENTRIES", '.irqfds = irqfds, .capabilities = "irqfd",'))

    driver = load(f"lib:{made}", subsystem("avic")).factory(None)

    acts = (("route", 0, 0, ((1, 0x40), (7, 0x50))), ("assign", 2, 2**32 - 1, ()), ("route", 0, 0, ()))
    assert driver.irqfds(acts) == ((-2, (0x41, 0x57)), (2**32 - 3, ()), (0, ()))


@pytest.mark.parametrize(("told", "clause"), [("", ""), ("4096", ""), ("1024", "AVIC-123")])
def test_a_router_in_c_tells_how_many_gsis_it_routes(told: str, clause: str, tmp_path: Path) -> None:
    """By a function, which it may lack: this one takes every table."""
    takes = IRQFDS.replace("-(s64)acts[i].table_len", "0").replace("_len = acts[i].table_len;", "_len = 0;")
    entries = '.irqfds = irqfds, .capabilities = "irqfd",'
    if told:
        takes += f"static s64 told(void *self) {{ (void)self; return {told}; }}\n"
        entries += " .irq_routing = told,"
    text = ALL_OF_AVIC.replace("const struct avic_driver avic", takes + "const struct avic_driver avic")
    candidate = load(f"lib:{library(tmp_path, text.replace('ENTRIES', entries))}", AVIC)
    script = Irqfds((Act("route", table=((2048, 0x41),)),))

    assert cited(judged(candidate.factory, avic.Config(), script, profile="kvm-lapic")) == clause


def test_what_is_no_library_is_refused(tmp_path: Path) -> None:
    """With the loader's own words."""
    path = tmp_path / "text.so"
    path.write_text("no ELF")

    with pytest.raises(UsageError, match=r"text.so cannot be loaded: .*(invalid ELF header|file too short)"):
        load(f"lib:{path}", OF)


def test_a_driver_without_memory_is_a_finding(tmp_path: Path) -> None:
    """create returned NULL."""
    made = library(tmp_path, WHOLE.replace("return world;", "return NULL;"))

    failure = run_trace(OF, corpus.read(SHIPPED[0]), load(f"lib:{made}", OF).factory).failure

    assert failure is not None
    assert (failure.kind, failure.detail) == ("crash", "create returned NULL")


def test_static_data_is_each_drivers_own(build: Build) -> None:
    """Two that live at the same time, entered in turn, share no list of devices."""
    factory = load(f"lib:{build()}", OF).factory
    worlds = [FAST(Config(), OF.profiles["upstream"]) for _ in range(2)]
    for world in worlds:
        world.start(factory)

    results = [[world.perform(Step(op).op) for world in worlds] for op in (Probe(), Open(), Close(), Remove())]

    assert results == [[0, 0]] * 4


@pytest.mark.parametrize("way", ["compiled", "callbacks"])
def test_an_endless_retry_is_left_after_a_breach(tmp_path: Path, way: str) -> None:
    """Where C can be left by a jump, whatever it would do next."""
    endless = WHOLE.replace(
        "{ (void)env; return world; }",
        "{ void **kept = malloc(2 * sizeof(*kept)); kept[0] = (void *)env; kept[1] = world; return kept; }",
    ).replace(
        "bool is_virtfn) { return 0; }",
        "bool is_virtfn) { void **kept = self; const struct uio_msi_env *env = kept[0]; int n = 0;"
        " do env->kfree(kept[1], 0x123); while (n++ < LIMIT); return 0; }",
    )
    limit = "2000000000" if way == "compiled" else "5"
    made = library(tmp_path, endless.replace("LIMIT", limit))
    binding = mode("uio_msi") if way == "compiled" else callbacks(header("uio_msi"), OF)

    failure = run_trace(OF, corpus.read(SHIPPED[0]), bind("lib:x", str(made), OF, binding)).failure

    assert failure is not None
    assert failure.detail == "kfree of 0x123, which was never allocated"


COMPANY = [path for path in SHIPPED if any(type(step.op) is Parallel for step in corpus.read(path).steps)]


@pytest.mark.parametrize("defect", [0, 5, 6, 8])
def test_real_threads_give_the_same_verdicts(build: Build, defect: int) -> None:
    """The same schedules, on threads of the operating system that hand a baton on."""
    on_one, on_two = (load(f"lib:{build(defect)}{option}", OF) for option in ("", "?threads"))
    before = threading.active_count()
    assert COMPANY
    for path in COMPANY:
        there, here = (run_trace(OF, corpus.read(path), c.factory).failure for c in (on_one, on_two))

        assert (there and (there.signature, there.step)) == (here and (here.signature, here.step)), path.name
    assert threading.active_count() <= before


@pytest.mark.parametrize(("option", "results"), [("", [2, 2]), ("?threads", [1, 1])])
def test_real_threads_have_data_of_their_own(tmp_path: Path, option: str, results: list[int]) -> None:
    """What is thread-local is shared by threads that take turns on one."""
    counting = WHOLE.replace(
        "{ (void)env; return world; }",
        "{ void **kept = malloc(2 * sizeof(*kept)); kept[0] = (void *)env; kept[1] = world; return kept; }",
    ).replace(
        "static int zero(void *self) { (void)self; return 0; }",
        "static __thread int times;\nstatic int zero(void *self) { void **kept = self; times++;"
        ' ((const struct uio_msi_env *)kept[0])->dev_info(kept[1], "here"); return times; }',
    )
    world = FAST(Config(), OF.profiles["upstream"])
    world.start(load(f"lib:{library(tmp_path, counting)}{option}", OF).factory)

    work = [(partial(world.enter_int, world.driver.open), Frame()) for _ in range(2)]

    assert Scheduler(world, [0]).run(work) == results


def test_a_thread_that_is_dropped_ends(build: Build) -> None:
    """When the other one breaks a clause; nothing is left of it."""
    (path,) = [path for path in SHIPPED if path.name.startswith("UIO-D16-")]
    before = threading.active_count()

    failure = run_trace(OF, corpus.read(path), load(f"lib:{build(8)}?threads", OF).factory).failure

    assert failure is not None
    assert threading.active_count() <= before


def test_an_option_that_there_is_not_is_refused(build: Build) -> None:
    """With what there is."""
    with pytest.raises(UsageError, match=r"expected \?threads or nothing after the path, not 'thread'"):
        load(f"lib:{build(0)}?thread", OF)


def test_flags_for_the_compiler(capsys: pytest.CaptureFixture[str]) -> None:
    """And one sentence where there are none."""
    assert main(["uio_msi", "--shim"]) == 0
    assert "-shared -fPIC" in capsys.readouterr().out
    assert main(["avic", "--shim"]) == 2
    assert capsys.readouterr().err == "there are no kernel look-alikes for avic, only for uio_msi\n"


def test_the_tutorial(tmp_path: Path) -> None:
    """The commands of docs/c.md, after the clone and the installation, say what it says they do."""
    text = (ROOT / "docs" / "c.md").read_text()
    commands = re.findall(r"^\$ (.*)$", text.split("## A driver of your own")[0], re.MULTILINE)
    assert len(commands) <= 10
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "108",
    }

    for command in commands[4:]:
        done = subprocess.run(  # noqa: S602
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    shown = re.search(r"```\n(UIO-069 violated.*?)```", text, re.DOTALL)
    assert shown is not None
    assert done.returncode == 1
    assert shown[1] in done.stdout


def test_a_driver_of_your_own(tmp_path: Path) -> None:
    """The second half of the tutorial: each command says what stands below it; … stands for anything."""
    part = (ROOT / "docs" / "c.md").read_text().split("## A driver of your own")[1].split("## How a driver")[0]
    diff = re.search(r"^```diff\n(.*?)^```", part, re.DOTALL | re.MULTILINE)
    assert diff is not None
    lines = diff[1].splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if line[0] == " ")
    after = "".join(line[1:] for line in lines)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "108"}
    driver = tmp_path / "mine" / "driver.c"
    consoles = re.findall(r"^```console\n(.*?)^```", part, re.DOTALL | re.MULTILINE)
    assert len(consoles) == 3

    for number, console in enumerate(consoles):
        if number == 2:  # the change has been made
            assert driver.read_text().count(before) == 1
            driver.write_text(driver.read_text().replace(before, after))
            os.utime(driver, (time.time() + 2,) * 2)
        for told in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
            command, *expected = told.splitlines()
            command = re.sub(r"^conformance ", f"{sys.executable} -m conformance ", command)
            done = subprocess.run(  # noqa: S602
                command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            pattern = "(.|\n)*".join(".*".join(map(re.escape, line.split("…"))) for line in expected if line != "…")
            assert re.search(pattern, done.stdout), done.stdout + done.stderr
