"""A candidate that is a process: judged as any other, whatever it does."""

from __future__ import annotations

import gc
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from conformance.candidates import child, process
from conformance.candidates.builtin.uio_msi.upstream import Upstream
from conformance.candidates.load import defects, load
from conformance.engines import campaign, corpus
from conformance.engines.context import Context, lacking
from conformance.engines.corpus import SHIPPED
from conformance.environment import door, scheduler
from conformance.lockstep import Report, run_trace
from conformance.model.step import Parallel, Step
from conformance.model.uio_msi.operations import Close, IrqSet, Open
from conformance.subsystem import NAMES, subsystem
from conformance.trace import Trace
from conformance.verdict import UsageError
from conformance.wire import schema
from conformance.wire.entries import entries_of
from conformance.wire.values import methods
from tests.ship_corpus import file_of
from tests.wire import OPENED, UIO, Zoo, as_process, opening

ROOT = Path(__file__).parents[2]


def signatures(report: Report) -> list[str]:
    """What a trace shows of a candidate."""
    return [found.signature for found in [*report.warnings, *([report.failure] if report.failure else [])]]


def floods(trace: Trace) -> bool:
    """Whether it has an operation that is a thousand."""
    return any(type(step.op).__name__ == "Flood" for step in trace.steps)


@pytest.mark.parametrize("name", NAMES)
def test_every_defect_shows_in_a_process_what_it_shows_in_python(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same clauses, operations and kinds, on the trace that the corpus has of it."""
    monkeypatch.setattr(door, "CALL_BUDGET", 5_000)
    monkeypatch.setattr(scheduler, "POINT_BUDGET", 5_000)
    monkeypatch.setattr(f"conformance.environment.{name}.world.CALLS", 5_000, raising=False)
    of = subsystem(name)
    shown = [(defect, path) for defect in defects(name) if (path := file_of(name, defect)) is not None]
    zoos: dict[frozenset[str], Zoo] = {}
    differing = {}
    for defect, path in shown:
        assert defect.candidate is not None
        has = frozenset(entry for entry in entries_of(of) if hasattr(defect.candidate, entry))
        zoo = zoos.get(has) or zoos.setdefault(has, Zoo([d.candidate for d, _ in shown if d.candidate], defect, of))
        trace = corpus.read(path)

        here = signatures(run_trace(of, trace, load(f"builtin:{defect.id}", of).factory))
        there = signatures(run_trace(of, trace, zoo.chosen(defect.candidate)))

        if here != there or not here:
            differing[defect.id] = (here, there)
    for zoo in zoos.values():
        zoo.end()
    assert len(shown) > 40
    assert differing == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_right_driver_passes_all_shipped_traces_in_one_process(name: str) -> None:
    """One instance after the other, without a new start; every message of another kind keeps the schema."""
    of = subsystem(name)
    upstream = load("builtin:upstream", of)
    remote = as_process(upstream.factory, of)
    first = remote.factory.child.pid
    said: dict[str, tuple[str, Any]] = {}
    remote.factory.show = lambda _pid, way, line: said.setdefault(_kind(line), (way, msgspec.json.decode(line)))
    wrong = {}

    for path in corpus.files(SHIPPED / name):
        trace = corpus.read(path)
        if not lacking(of, trace, upstream.capabilities) and not floods(trace):
            report = run_trace(
                of, replace(trace, profile=upstream.profile), remote.factory, environment=of.fast or of.environment
            )
            if report.failure is not None:
                wrong[path.name] = report.failure

    assert wrong == {}
    assert remote.factory.child.pid == first
    remote.factory.end()
    gc.collect()
    assert len(said) > 30
    valid = {way: validator(name, part) for way, part in ((">", "to-driver"), ("<", "to-suite"))}
    assert not valid["<"].is_valid({"type": "call", "op": 1, "name": "reboot", "args": []})
    for way, message in said.values():
        assert valid[way].is_valid(message), message


def validator(name: str, part: str) -> Draft202012Validator:
    """Of one direction of a subsystem's conversation."""
    whole = json.loads((schema.FOLDER / f"{name}.json").read_text())
    return Draft202012Validator({**whole, "anyOf": [{"$ref": f"#/$defs/{part}"}]})


# -- Whatever a process does is a finding


def say(text: str | bytes) -> None:
    """Write where messages are read."""
    data = text.encode() if isinstance(text, str) else text
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def flood(line: bytes) -> None:
    while True:
        say(line * 1000)


def complain(text: str) -> None:
    os.write(2, text.encode())


def ask_twice() -> None:
    say('{"type":"call","op":3,"name":"capable","args":[17]}\n' * 2)
    time.sleep(60)


def loop() -> None:
    while True:
        pass


def abort() -> None:
    complain("list_del corruption\nkernel BUG at list_debug.c:47\n")
    os.abort()


def sanitized() -> None:
    complain("==7==ERROR: AddressSanitizer: heap-use-after-free on address 0x1\n    #0 0x2 in open\n")
    complain("SUMMARY: AddressSanitizer: heap-use-after-free uio.c:7 in open\nShadow bytes around\n")
    os._exit(1)


def close() -> None:
    os.close(0)
    os.close(1)
    time.sleep(60)


def orphan() -> None:
    """Leave a child that keeps everything open, and end."""
    if os.fork() == 0:
        time.sleep(60)
    os._exit(5)


MISDEEDS: dict[str, tuple[Callable[[], Any], str, str]] = {
    "segfault": (lambda: die(signal.SIGSEGV), "crash", "its process was killed by SIGSEGV"),
    "abort": (abort, "crash", "killed by SIGABRT\n  stderr: list_del corruption\n  stderr: kernel BUG at list_debug"),
    "exit": (lambda: os._exit(0), "crash", "its process ended with exit code 0"),
    "orphan": (orphan, "crash", "its process ended with exit code 5"),
    "sanitizer": (sanitized, "crash", "SUMMARY: AddressSanitizer: heap-use-after-free uio.c:7 in open"),
    "loop": (loop, "hang", "did not return within 0.3 s"),
    "blocking": (lambda: os.read(os.pipe()[0], 1), "hang", "did not return within 0.3 s"),
    "stopped": (lambda: die(signal.SIGSTOP), "hang", "did not return within 0.3 s"),
    "memory": (lambda: (b"x" * (299 << 20), time.sleep(60)), "crash", "MiB of memory"),
    "closed": (close, "crash", "it closed its standard output"),
    "line flood": (lambda: flood(b"ho\n"), "crash", "said what is no message: 'ho'"),
    "flood": (lambda: flood(b"ho"), "crash", "said a line of more than 4 MiB"),
    "stderr flood": (lambda: [complain("x" * 60 + "\n") for _ in range(100_000)] and die(9), "crash", "SIGKILL"),
    "no protocol": (lambda: say("Segmentation fault\n"), "crash", "said what is no message: 'Segmentation fault'"),
    "no text": (lambda: say(b"\xff\xfe\n"), "crash", "said what is no message"),
    "deep": (lambda: say("[" * 100_000 + "\n"), "crash", "said what is no message"),
    "half a message": (
        lambda: (say('{"type":"ret'), os._exit(0)),
        "crash",
        'in the middle of a line: \'{"type":"ret\'',
    ),
    "out of turn": (lambda: say('{"type":"return","op":1,"value":0}\n'), "crash", "spoke out of turn"),
    "another's reply": (lambda: say('{"type":"stopped","op":3}\n'), "crash", "spoke out of turn"),
    "two calls": (ask_twice, "crash", "spoke out of turn"),
    "no such call": (lambda: say('{"type":"call","op":3,"name":"reboot","args":[]}\n'), "crash", "'reboot'"),
    "100 MB": (lambda: say('{"type":"return","op":3,"value":"' + "x" * (100 << 20)), "crash", "of more than 4 MiB"),
    "wrong type": (lambda: say('{"type":"return","op":3,"value":0.5}\n'), "type", "open returned 0.5 (float)"),
    "wide": (lambda: say('{"type":"return","op":3,"value":' + "9" * 40 + "}\n"), "type", "int of 133 bits"),
    "none": (lambda: say('{"type":"return","op":3}\n'), "type", "open returned None (NoneType), expected int"),
    "exception": (lambda: 1 // 0, "crash", "open raised ZeroDivisionError"),
    "bad arguments": (
        lambda: say('{"type":"call","op":3,"name":"mutex_lock","args":["a"]}\n') or time.sleep(60),
        "type",
        "mutex_lock: mutex is 'a' (str), expected int",
    ),
}


@pytest.mark.parametrize("what", MISDEEDS)
def test_what_a_process_does_is_a_finding(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the clause on robustness, at the operation in which it does it; the next trace has a fresh process."""
    misdeed, kind, detail = MISDEEDS[what]
    monkeypatch.setattr(process, "PATIENCE", 5.0 if kind != "hang" else 0.3)
    monkeypatch.setattr(child, "DYING", 1.0)
    if what == "memory":  # a fork has what the test has, but for files that are mapped
        own = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert own
        monkeypatch.setattr(child, "MEMORY", (int(own[1]) << 10) + (100 << 20))
    candidate = as_process(opening(misdeed), UIO)

    failure = run_trace(UIO, OPENED, candidate.factory).failure
    again = run_trace(UIO, OPENED.with_steps(OPENED.steps[:1]), candidate.factory)

    candidate.factory.end()
    assert failure is not None
    assert failure.signature == f"{UIO.robustness.id}:Open:{kind}"
    assert detail in failure.detail
    assert failure.step == 1
    assert again.failure is None


def test_what_ends_a_process_is_found_with_a_minimal_trace() -> None:
    """By an engine that goes on with fresh processes, and finds the next thing as well."""

    class TwoWays(Upstream):
        def open(self) -> int:
            return os._exit(3) if self.open_count else super().open()

        def irqcontrol(self, on: int) -> int:
            os.abort()

    candidate = as_process(TwoWays, UIO)
    context = Context(subsystem=UIO, candidate=candidate, profile="upstream", steps=1500)

    campaign.run(context)

    candidate.factory.end()
    found = {f.signature: [type(step.op).__name__ for step in f.trace.steps] for f in context.failures if f.trace}
    assert found["UIO-078:Open:crash"] == ["Probe", "Open", "Open"]
    assert found["UIO-078:Write:crash"] == ["Probe", "Open", "Write"]


def test_a_process_that_dies_of_the_end_of_a_trace_is_found() -> None:
    """That is an operation like any other; so is what it says when nobody asks any more."""

    class Last(Upstream):
        def __del__(self) -> None:
            die(signal.SIGSEGV)

    class Talks(Upstream):
        def release(self) -> int:
            super().release()
            say('{"type":"return","op":4,"value":0}\nclosed\n')
            os.read(0, 1)
            os._exit(0)

    dying, talking = as_process(Last, UIO), as_process(Talks, UIO)

    died = run_trace(UIO, OPENED, dying.factory, record=True)
    talked = run_trace(UIO, OPENED.with_steps((*OPENED.steps[:2], Step(Close()))), talking.factory)

    assert died.failure is not None
    assert talked.failure is not None
    assert (died.failure.signature, died.failure.step) == ("UIO-078:End:crash", 2)
    assert talked.failure.signature == "UIO-078:End:crash"
    assert "spoke out of turn: 'closed" in talked.failure.detail
    dying.factory.end()
    talking.factory.end()


def test_two_operations_at_once_wait_for_calls_of_their_own() -> None:
    """Each message says which operation it is about, and on which thread that runs."""
    said: list[tuple[str, Any]] = []
    candidate = as_process(Upstream, UIO)
    candidate.factory.show = lambda _pid, way, line: said.append((way, msgspec.json.decode(line)))
    both = Step(Parallel(Step(IrqSet(0, 256)), Step(IrqSet(1, 257)), schedule=(1, 3)))

    report = run_trace(UIO, OPENED.with_steps((*OPENED.steps[:2], both)), candidate.factory)

    candidate.factory.end()
    assert report.failure is None
    entered = {m["op"]: m["thread"] for way, m in said if way == ">" and m["type"] == "enter" and m["name"] == "ioctl"}
    order = [m["op"] for way, m in said if way == "<" and m["type"] in ("call", "return") and m["op"] in entered]
    assert sorted(entered.values()) == [0, 1]
    assert 2 <= sum(a != b for a, b in pairwise(order)) < len(order)


def test_an_operation_that_is_to_be_left_is_left_everywhere() -> None:
    """A breach in the middle of two operations ends both; the process goes on with the next trace."""

    class Unlocks(Upstream):
        def open(self) -> int:
            self.port.capable(17)
            return int(self.port.mutex_unlock(0x100) or 0)

    candidate = as_process(Unlocks, UIO)
    first = candidate.factory.child.pid
    both = Step(Parallel(Step(Open()), Step(Open()), schedule=(1,)))

    reports = [run_trace(UIO, OPENED.with_steps((OPENED.steps[0], both)), candidate.factory) for _ in range(3)]

    assert {r.failure.signature for r in reports if r.failure} == {"UIO-078:Open+Open:protocol"} or all(
        r.failure for r in reports
    )
    assert candidate.factory.child.pid == first
    candidate.factory.end()


# -- What it says of itself

HELLO: dict[str, Any] = {
    "type": "hello",
    "protocol": 1,
    "name": "mine",
    "subsystem": "uio_msi",
    "capabilities": [],
    "entries": ["probe", "remove", "open", "release", "ioctl", "handler"],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"protocol": 2}, "speaks protocol 2, this is protocol 1"),
        ({"subsystem": "cet"}, "implements 'cet', expected 'uio_msi'"),
        ({"profile": "upstraem"}, "no profile 'upstraem'; did you mean 'upstream'?"),
        ({"capabilities": ["intxx"]}, "knows no capability 'intxx'; did you mean 'intx'?"),
        (
            {"capabilities": ["compat"]},
            "no entry point 'compat_ioctl'; add it, or declare capabilities without",
        ),
        ({"entries": ["probe"]}, "mine has no entry point 'remove'"),
        ({"entries": ["prob"]}, "no entry point 'prob'; did you mean 'probe'?"),
        ({"colour": "red"}, "did not say hello, but"),
        ({"type": "call"}, "did not say hello, but"),
    ],
)
def test_what_a_process_says_of_itself_is_checked(tmp_path: Path, change: dict[str, Any], message: str | None) -> None:
    """One sentence, as for a class."""
    (tmp_path / "hello").write_text(json.dumps(HELLO | change) + "\n")
    spec = f"cmd:sh -c 'read line; cat {tmp_path}/hello; read line'"
    if message is None:
        assert load(spec, UIO).capabilities == frozenset()
        return

    with pytest.raises(UsageError) as refusal:
        load(spec, UIO)

    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("capabilities", [None, ["helpers", "irqfd"]])
def test_what_must_be_declared_is_not_taken_for_granted(tmp_path: Path, capabilities: list[str] | None) -> None:
    """A process that says nothing of it has it not, and one that declares it needs the entry point."""
    of = subsystem("avic")
    entries = [name for name in methods(of.candidate) if not capabilities or of.optional[name] in capabilities]
    hello = HELLO | {"subsystem": "avic", "capabilities": capabilities, "entries": entries}
    (tmp_path / "hello").write_text(json.dumps(hello) + "\n")
    spec = f"cmd:sh -c 'read line; cat {tmp_path}/hello; read line'"

    if capabilities is None:
        assert load(spec, of).capabilities == set(of.capabilities) - {"irqfd"}
        return
    with pytest.raises(UsageError, match="mine has no entry point 'irqfds'; add it, or declare capabilities without"):
        load(spec, of)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("nowhere/driver", "nowhere/driver: there is no such program"),
        ("'", "No closing quotation"),
        (" ", "expected cmd:PROGRAM"),
        ("false", "its process ended with exit code 1"),
        ("sh -c 'echo no >&2; exit 7'", "its process ended with exit code 7\n  stderr: no"),
        ("echo hello", "did not say hello, but 'hello'"),
        ("pyproject.toml", "pyproject.toml: cannot be executed"),
    ],
)
def test_a_process_that_cannot_be_had_is_one_sentence(command: str, message: str) -> None:
    """Before anything runs."""
    with pytest.raises(UsageError) as refusal:
        load(f"cmd:{command}", UIO)

    assert message in str(refusal.value)


# -- The schema


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_is_that_of_the_port(name: str) -> None:
    """`python -m conformance.wire.schema` makes it anew."""
    assert (schema.FOLDER / f"{name}.json").read_text() == schema.text(subsystem(name))


def _kind(line: bytes) -> str:
    message = msgspec.json.decode(line)
    return f"{message['type']} {message.get('name')}"


# -- The page and the examples


def blocks(language: str) -> list[str]:
    """Code of one language in docs/wire.md."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "docs" / "wire.md").read_text(), re.DOTALL | re.MULTILINE)


def drivers() -> list[str]:
    """The two drivers of the tutorial; the second has another loop than the first."""
    first, second = blocks("python")
    return [first, first[: first.index("for line in sys.stdin")] + second]


def test_the_tutorial_is_true(tmp_path: Path) -> None:
    """Each command says what stands below it; … stands for anything."""
    consoles = blocks("console")
    folder = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    assert len(consoles) == 3
    for console, driver in zip(consoles, [*drivers(), drivers()[1]], strict=True):
        (tmp_path / "driver.py").write_text(driver)
        command, *expected = console.splitlines()
        command = command.removeprefix("$ ").replace("conformance ", f"{sys.executable} -m conformance ", 1)
        done = subprocess.run(
            ["sh", "-c", command], cwd=tmp_path, env=folder, capture_output=True, text=True, check=False
        )

        said = done.stdout + done.stderr if "replay" not in command else done.stderr + done.stdout
        pattern = "(.|\n)*".join(".*".join(map(re.escape, line.split("…"))) for line in expected if line != "…")
        assert re.search(pattern, said), said
        assert done.returncode == 1


@pytest.fixture(scope="session")
def c_driver(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The command of the C example."""
    folder = tmp_path_factory.mktemp("c")
    for path in (ROOT / "examples/process/c").iterdir():
        shutil.copy(path, folder)
    subprocess.run(["make", "-C", folder], check=True, capture_output=True)
    return f"cmd:{folder}/uio_msi"


@pytest.mark.parametrize("language", ["c", "node"])
def test_an_example_is_right_and_its_defects_are_those_of_the_zoo(language: str, c_driver: str) -> None:
    """Shipped traces, a campaign with company, and the signatures of the Python classes."""
    spec = c_driver if language == "c" else f"cmd:node {ROOT}/examples/process/node/uio_msi.js"
    right = load(spec, UIO)
    wrong = {}
    for path in corpus.files(SHIPPED / "uio_msi"):
        trace = corpus.read(path)
        if not floods(trace):
            report = run_trace(UIO, replace(trace, profile="upstream"), right.factory)
            if report.failure is not None:
                wrong[path.name] = report.failure
    context = Context(subsystem=UIO, candidate=right, profile="upstream", steps=1200)
    campaign.run(context)
    shown = {}
    for name in ("UIO-D01", "UIO-D05", "UIO-L05"):
        (path,) = SHIPPED.glob(f"uio_msi/{name}-*.json")
        shown[name] = [
            signatures(run_trace(UIO, corpus.read(path), load(one, UIO).factory))
            for one in (f"builtin:{name}", f"{spec} --defect {name}")
        ]

    assert wrong == {}
    assert context.failures == []
    assert all(here == there != [] for here, there in shown.values()), shown


def test_a_sanitizer_tells_what_was_wrong(tmp_path: Path) -> None:
    """Its summary stands in the failure: here of a use after free in `open`."""
    source = tmp_path / "wild.c"
    text = (ROOT / "examples/process/c/uio_msi.c").read_text()
    opening = "static int64_t open_(void *instance, const struct wire_value *args)\n{\n"
    assert opening in text
    misuse = "\tchar *name = malloc(8);\n\tfree(name);\n\tif (name[args ? 0 : 1])\n\t\treturn 0;\n"
    source.write_text(text.replace(opening, opening + misuse))
    wire = ROOT / "examples/process/c"
    flags = ["-std=c11", "-D_GNU_SOURCE", "-g", "-pthread", "-fsanitize=address,undefined", f"-I{wire}"]
    subprocess.run(["cc", *flags, "-o", tmp_path / "wild", source, wire / "wire.c"], check=True)
    candidate = load(f"cmd:{tmp_path}/wild", UIO)

    failure = run_trace(UIO, OPENED, candidate.factory).failure

    assert failure is not None
    assert failure.signature == "UIO-078:Open:crash"
    assert "SUMMARY: AddressSanitizer: heap-use-after-free" in failure.detail


def test_a_descriptor_travels_where_eventfds_are_real(tmp_path: Path) -> None:
    """With the result of eventfd_ctx_fdget, to a driver that asks for it."""
    driver = tmp_path / "driver.py"
    driver.write_text(DESCRIPTORS)
    candidate = load(f"cmd:{sys.executable} -I -S {driver}", UIO)
    wired = OPENED.with_steps((*OPENED.steps[:2], Step(IrqSet(0, 256))))

    real = run_trace(UIO, wired, candidate.factory).failure
    fast = run_trace(UIO, wired, candidate.factory, environment=UIO.fast).failure

    assert real is not None
    assert fast is not None
    assert "Error: anon_inode:[eventfd]" in real.detail
    assert "Error: no descriptor" in fast.detail


DESCRIPTORS = """
import array, json, os, socket
suite = socket.socket(fileno=0)

def say(**message):
    os.write(1, json.dumps(message).encode() + b"\\n")

def hear():
    line, rights, _, _ = suite.recvmsg(65536, 64)
    fds = array.array("i", b"".join(data for _, _, data in rights))
    return json.loads(line), fds

def call(op, name, *args):
    say(type="call", op=op, name=name, args=args)
    return hear()

while True:
    message, _ = hear()
    op = message.get("op")
    if message["type"] == "hello":
        entries = ["probe", "remove", "open", "release", "ioctl", "handler"]
        say(type="hello", protocol=1, name="d", subsystem="uio_msi", capabilities=[], entries=entries, restart=True,
            descriptors=True)
        continue
    value = None
    if message["type"] == "enter":
        value = 0
        if message["name"] == "probe":
            call(op, "kzalloc", 8)
            call(op, "pci_enable_device")
            call(op, "pci_request_regions", "d")
            call(op, "uio_register_device", "d", "1", -1, False, [["BAR0", 0xf0000000, 0, 0x1000, 1]], [])
        if message["name"] == "open":
            call(op, "capable", 17)
            call(op, "pci_set_master")
            call(op, "pci_enable_msix", [0, 1])
        if message["name"] == "ioctl":
            answer, fds = call(op, "eventfd_ctx_fdget", 256)
            what = os.readlink(f"/proc/self/fd/{fds[0]}") if answer.get("descriptor") else "no descriptor"
            say(type="raise", op=op, error=f"Error: {what}")
            continue
    say(type="return", op=op, value=value)
"""


def test_a_run_goes_on_after_a_crash_and_ends_with_a_verdict(c_driver: str, tmp_path: Path) -> None:
    """Exit code 1, the minimal trace in the report, and a conversation that shows how far it came."""
    spec = f"{c_driver} --defect UIO-D05"
    options = ["--engine", "corpus", "-x", "--traces", tmp_path, f"--trace-wire={tmp_path}/wire"]
    command = [sys.executable, "-m", "conformance", "run", "uio_msi", "--candidate", spec, *options]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 1, done.stderr
    assert "UIO-078 violated by" in done.stdout
    assert "step 1 of 1" in done.stdout
    assert "its process was killed by SIGSEGV" in done.stdout
    assert shlex.quote(spec) in done.stdout
    said = (tmp_path / "wire").read_text().splitlines()
    assert len({line.split()[0] for line in said}) > 2, "each crash has a process of its own"
    assert '"name":"probe"' in next(line for line in reversed(said) if '"enter"' in line)
