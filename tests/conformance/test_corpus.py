"""A user's corpus: tried first, grown by hunts, never damaged, and refused in one sentence where it is no corpus."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from time import sleep

import pytest

from conformance.commands import main as cli
from conformance.engines import corpus
from conformance.lockstep import run_trace
from conformance.runs import unit
from conformance.runs.growth import Growth
from conformance.runs.result import Result, failure_to_data
from conformance.subsystem import subsystem
from conformance.trace import Trace, encode
from conformance.verdict import Failure
from tests.toy import TOY, Clear, Config, Put, Shelf, Take
from tests.toyland import Leaky, in_short, shipped


@pytest.fixture(autouse=True)
def _toyland(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    with shipped(monkeypatch):
        in_short(monkeypatch)
        monkeypatch.chdir(tmp_path)
        yield


def conformance(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of one command."""
    code = cli.invoke(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def trace(*ops: object) -> Trace:
    return Trace("toy", "upstream", Config(), tuple(corpus.Step(op) for op in ops))


def leak(*ops: object) -> Failure:
    """The failure of the leaky shelf on these."""
    failure = run_trace(TOY, trace(*ops), Leaky).failure
    assert failure is not None
    return replace(failure, engine="campaign")


def told(engine: str, *failures: Failure) -> Result:
    """The result of a unit that found these."""
    found = [failure_to_data(failure) for failure in failures]
    return Result(f"toy.{engine}", "toy", "builtin:as-posted", "upstream", [], failures=found)


def there(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in corpus.files(folder))


@pytest.mark.parametrize("kind", ["missing", "file", "inside a file"])
def test_a_corpus_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """A mistyped path is not an empty corpus; the sentence says how to make one."""
    Path("file").write_text("")
    where = {"missing": "corpsu", "file": "file", "inside a file": "file/corpus"}[kind]

    code, out, err = conformance(capsys, "run", "toy", "--candidate", "builtin:upstream", "--corpus", where)

    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert f"--corpus={where}: " in err
    assert ("conformance corpus init" in err) == (kind != "file")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"schema": 1, "subsy', "not a trace file"),
        ('{"schema": 2, "subsystem": "toy", "steps": []}', "this version reads schema 1, not 2"),
        ("[" * 100_000, "nested too deep"),
        ('{"schema": 1, "subsystem": "toy", "steps": [{"op": "Putt"}]}', "unknown operation 'Putt'"),
    ],
)
def test_a_file_that_is_no_trace_is_named_and_left_alone(
    capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    """Before anything runs; neither it nor its neighbours are touched."""
    Path("corpus").mkdir()
    Path("corpus/a.json").write_text(text)
    Path("corpus/b.json").write_text(encode(trace(Put())))

    arguments = ("--candidate", "builtin:as-posted", "--corpus", "corpus", "--budget", "1s")
    code, out, err = conformance(capsys, "run", "toy", *arguments)

    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith("conformance: corpus/a.json: ")
    assert says in err
    assert Path("corpus/a.json").read_text() == text
    assert there(Path("corpus")) == ["a.json", "b.json"]


def test_a_saved_trace_decides_the_gate(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the other engines would have found: it is tried, and its failure is the verdict."""
    corpus.save(Path("corpus"), leak(Put(), Put(), Take()))

    arguments = ("run", "toy", "--candidate", "builtin:as-posted", "--engine", "corpus", "--corpus", "corpus")
    code, out, _ = conformance(capsys, *arguments)

    assert code == 1
    assert "TOY-007 violated by builtin:as-posted" in out


def test_a_trace_is_judged_under_the_candidates_profile() -> None:
    """A corpus serves candidates of every profile."""
    corpus.save(Path("corpus"), leak(Put(), Put(), Take()))
    (path,) = corpus.files(Path("corpus"))
    path.write_text(path.read_text().replace('"upstream"', '"of another version"'))
    context = unit.Context(TOY, unit.load("builtin:as-posted", TOY), "upstream", engine="corpus")

    corpus.run(context, Path("corpus"))

    assert [found.signature for found in context.failures] == ["TOY-007:Take:view.held"]


def test_a_hunt_adds_each_signature_once() -> None:
    """Two engines that find the same add it once; the name says what it shows."""
    growth = Growth(Path("corpus"), (), print)

    growth.add(told("campaign.1", leak(Put(), Put(), Take())))
    growth.add(told("campaign.2", leak(Put(), Put(), Put(), Take(), Take())))

    (name,) = there(Path("corpus"))
    assert name.startswith("toy/TOY-007-Take-view.held-")


def test_what_a_saved_trace_shows_is_not_added_again() -> None:
    """Even where another engine found it before the saved traces had been tried."""
    growth = Growth(Path("corpus"), ("toy",), print)
    saved = replace(leak(Put(), Put(), Take()), engine="corpus")

    growth.add(told("campaign.1", leak(Put(), Put(), Put(), Take(), Take())))
    growth.add(told("corpus", saved))
    growth.end()

    assert there(Path("corpus")) == []


def test_what_waits_for_the_saved_traces_is_not_lost_with_them() -> None:
    """Their unit died; the findings of the others are kept."""
    growth = Growth(Path("corpus"), ("toy",), print)

    growth.add(told("campaign.1", leak(Put(), Put(), Take())))
    growth.end()

    assert len(there(Path("corpus"))) == 1


def test_a_failure_that_did_not_show_again_is_not_added() -> None:
    """It proves nothing."""
    growth = Growth(Path("corpus"), (), print)

    growth.add(told("campaign.1", replace(leak(Put(), Put(), Take()), flaky=True)))

    assert there(Path("corpus")) == []


def test_a_folder_that_cannot_be_written_costs_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on: the finding is in its report."""
    said: list[str] = []
    Path("corpus").write_text("")

    Growth(Path("corpus"), (), said.append).add(told("campaign.1", leak(Put(), Put(), Take())))

    assert len(said) == 1
    assert "TOY-007:Take:view.held was not added to the corpus: " in said[0]


def test_two_hunts_leave_the_corpus_as_one_did(capsys: pytest.CaptureFixture[str]) -> None:
    """What the first one saved, the second one knows."""
    conformance(capsys, "corpus", "init", "corpus")
    hunt = ("run", "toy", "--candidate", "builtin:as-posted", "--corpus", "corpus", "--budget", "2s", "--seed")
    conformance(capsys, *hunt, "1")
    first = there(Path("corpus"))

    conformance(capsys, *hunt, "2", "--engine", "corpus,campaign")

    assert len(first) >= 1
    assert [n.rsplit("-", 1)[0] for n in there(Path("corpus"))] == [n.rsplit("-", 1)[0] for n in first]


def test_a_new_corpus_can_be_committed(capsys: pytest.CaptureFixture[str]) -> None:
    """It is not an empty folder, which version control does not keep; made twice it is as before."""
    assert conformance(capsys, "corpus", "init", "a/corpus")[0] == 0
    Path("a/corpus/README.md").write_text("ours")

    code, out, _ = conformance(capsys, "corpus", "init", "a/corpus")

    assert (code, out) == (0, "exit 0: a/corpus is a corpus of 0 traces\n")
    assert Path("a/corpus/README.md").read_text() == "ours"


def test_a_trace_is_added_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Under its own name and the digest of what it says, however its file was laid out."""
    Path("why.json").write_text(json.dumps(json.loads(encode(trace(Put(), Take())))))
    Path("again-0a1b2c3d.json").write_text(encode(trace(Put(), Take())))

    code, out, _ = conformance(capsys, "corpus", "add", "corpus", "why.json", "again-0a1b2c3d.json")

    assert (code, out) == (0, "exit 0: 1 traces added to corpus, 1 were there already\n")
    assert there(Path("corpus")) == [f"toy/why-{corpus.digest(encode(trace(Put(), Take())))}.json"]


def test_what_is_not_a_trace_is_not_added(capsys: pytest.CaptureFixture[str]) -> None:
    """And no corpus is made for it."""
    Path("bad.json").write_text("{}")

    code, _, err = conformance(capsys, "corpus", "add", "corpus", "bad.json")

    assert (code, "bad.json: $.schema: missing" in err, Path("corpus").exists()) == (2, True, False)


def test_lint_finds_and_prune_removes_what_shows_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twins and the impossible go; what is no trace is told of and stays."""
    monkeypatch.setattr(sys.modules["conformance.model.toy"], "legal", lambda _state, op: not isinstance(op, Clear))
    subsystem.cache_clear()
    Path("corpus").mkdir()
    for name, ops in {"a": (Put(), Take()), "b": (Put(), Take()), "c": (Clear(),), "e": (Clear(), Take())}.items():
        Path(f"corpus/{name}.json").write_text(encode(trace(*ops)))
    Path("corpus/d.json").write_text("{")

    code, out, _ = conformance(capsys, "corpus", "lint", "corpus")
    conformance(capsys, "corpus", "prune", "corpus")

    assert code == 1
    assert "corpus/b.json: the same trace as corpus/a.json" in out
    assert "corpus/d.json: not a trace file" in out
    assert "corpus/c.json: 1 of 1 steps cannot happen" in out
    assert "corpus/e.json: 1 of 2 steps cannot happen" in out
    assert there(Path("corpus")) == ["a.json", "d.json", "e.json"]


@pytest.mark.parametrize("what", ["fifo", "device", "large", "folder"])
def test_only_a_regular_file_of_a_bearable_size_is_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A pipe would wait for ever, and a device never ends."""
    monkeypatch.setattr(corpus, "LARGEST", 1 << 20)
    path = Path("/dev/zero") if what == "device" else Path("odd")
    if what == "fifo":
        os.mkfifo(path)
    elif what == "large":
        path.write_text(" " * (1 << 20) + "{}")
    elif what == "folder":
        path.mkdir()

    code, out, err = conformance(capsys, "replay", str(path), "--candidate", "builtin:upstream")

    says = {"large": "larger than the 1 MiB that a trace file may have", "folder": "Is a directory"}
    assert (code, out) == (2, "")
    assert err == f"conformance: {path}: {says.get(what, 'not a regular file')}\n"


def test_nesting_has_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    """A file nested 100,000 deep costs one sentence."""
    Path("deep.json").write_text('{"schema": 1, "steps": ' + "[" * 100_000)

    code, _, err = conformance(capsys, "replay", "deep.json", "--candidate", "builtin:upstream")

    assert (code, err) == (2, "conformance: deep.json: not a trace file: its values are nested too deep\n")


def test_a_right_shelf_passes_what_a_wrong_one_saved(capsys: pytest.CaptureFixture[str]) -> None:
    """A corpus of failures is no failure."""
    corpus.save(Path("corpus"), leak(Put(), Put(), Take()))
    context = unit.Context(TOY, unit.load("builtin:upstream", TOY), "upstream", engine="corpus")

    corpus.run(context, Path("corpus"))

    assert (context.failures, context.tally.traces) == ([], 1)
    assert run_trace(TOY, trace(Put(), Put(), Take()), Shelf).failure is None


def test_a_kill_leaves_every_file_old_or_new(tmp_path: Path) -> None:
    """At fifty moments: what can be seen of the corpus is whole traces."""
    folder = tmp_path / "corpus"
    texts = {encode(trace(*[Put()] * n)) for n in range(1, 200)}
    random = Random(0)
    written = set()
    for _ in range(50):
        child = os.fork()
        if child == 0:
            while True:
                for n in range(1, 200):
                    corpus.put(folder, f"same-{random.randrange(50)}", trace(*[Put()] * n))
        sleep(random.random() / 50)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = {path.read_text() for path in corpus.files(folder)}
        assert found <= texts
        written |= found

    assert len(written) > 1
