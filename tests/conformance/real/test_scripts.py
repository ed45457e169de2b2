"""Scripts of measured facts: each row has what holds it, a run plays them, and one that is not so is told."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformance.candidates.load import from_adapter
from conformance.engines import corpus
from conformance.engines.context import Context
from conformance.engines.corpus import SHIPPED
from conformance.model.step import Outcome
from conformance.real.adapter import Adapter
from conformance.real.bochs_cet import BochsCet
from conformance.real.bochs_cet.bench import BochsBench
from conformance.real.kvm_lapic import KvmLapic
from conformance.real.kvm_lapic.bench import KvmBench
from conformance.real.linux_avic import LinuxAvic
from conformance.real.linux_avic.bench import AvicBench
from conformance.real.linux_tdpmmu import LinuxTdpMmu
from conformance.real.linux_tdpmmu.bench import TdpBench
from conformance.real.linux_uio import LinuxUio
from conformance.real.linux_uio.bench import UioBench
from conformance.real.linux_vfio import LinuxVfio
from conformance.real.linux_vfio.bench import VfioBench
from conformance.real.scripts import SUFFIX, Bench, Script, act, check, load, play, play_all
from conformance.real.scripts import Outcome as Came
from conformance.runs import unit
from conformance.runs.request import Unit
from conformance.subsystem import NAMES, subsystem
from conformance.verdict import Crash, HarnessError, UsageError
from tests import linux_facts, real_facts
from tests.real_facts import Fact

KINDS: dict[str, tuple[str, type[Adapter], type[Bench]]] = {
    "kvm_lapic": ("avic", KvmLapic, KvmBench),
    "bochs_cet": ("cet", BochsCet, BochsBench),
    "linux_vfio": ("uio_msi", LinuxVfio, VfioBench),
    "linux_uio": ("uio_msi", LinuxUio, UioBench),
    "linux_avic": ("avic", LinuxAvic, AvicBench),
    "linux_tdpmmu": ("tdp_mirror", LinuxTdpMmu, TdpBench),
}
PATHS = sorted(path for name in NAMES for path in (SHIPPED / name / "real" / "raw").glob("*"))
SCRIPTS = {path.stem: load(path) for path in PATHS}
MEASURED = Path(__file__).parents[3] / "docs" / "measured.md"
SECTIONS = {"A.5": 26, "A.6": 10, "C.1": 12, "C.2": 9, "D": 16, "E": 5, "F": 9}
"""How many rows there are of each."""


def rows() -> dict[str, list[tuple[str, ...]]]:
    """The files that hold each row, by section."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for line in MEASURED.read_text().splitlines():
        if line.startswith("## "):
            section = found.setdefault(line[3:].partition(":")[0], [])
        elif line.startswith("| ") and not line.startswith("| what |"):
            section.append(tuple(re.findall(r"`([^`]+)`", line.rstrip("| ").rpartition("|")[2])))
    return found


# -- the rows


@pytest.mark.parametrize("section", SECTIONS)
def test_each_row_is_held_by_a_file(section: str) -> None:
    """None is without, and none is missing."""
    held = rows()[section]

    assert len(held) == SECTIONS[section]
    assert all(held)


def test_each_file_holds_a_row() -> None:
    """What is named is shipped, and what is shipped is named."""
    named = {name for held in rows().values() for files in held for name in files}
    traces = {path.stem for name in NAMES for path in (SHIPPED / name / "real").glob("*.json")}

    assert named == traces | {f"raw/{name}" for name in SCRIPTS}


def test_a_script_is_of_the_section_that_it_stands_in() -> None:
    """So that what a run says leads to the row."""
    where = {name: section for section, held in rows().items() for files in held for name in files}

    assert {name: where[f"raw/{name}"] for name in SCRIPTS} == {name: script.fact for name, script in SCRIPTS.items()}


@pytest.mark.parametrize("fact", [*real_facts.FACTS, *linux_facts.FACTS], ids=lambda fact: fact.name)
def test_a_trace_alone_holds_its_row_or_a_script_does(fact: Fact) -> None:
    """Where the model allows other results than the measured one, a script of the same row has that."""
    of = subsystem(fact.subsystem)
    profile = of.profiles[fact.profile]
    states, others = [of.initial(fact.config, profile)], 0
    for op, result in fact.steps:
        given = [outcome for state in states for outcome in _outcomes(of.step(state, op, of.answers(), profile))]
        others += sum(outcome.result != result for outcome in given)
        states = list(dict.fromkeys(outcome.state for outcome in given if outcome.result == result))
    beside = [files for held in rows().values() for files in held if f"{fact.adapter}-{fact.name}" in files]

    assert states
    assert not others or any(name.startswith("raw/") for files in beside for name in files)


def _outcomes(told: Any) -> list[Outcome]:
    return [told] if isinstance(told, Outcome) else list(told)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_asks_for_what_its_bench_has(name: str) -> None:
    """And compares something; its name begins with its adapter's."""
    script = SCRIPTS[name]

    check(script, KINDS[script.adapter][2])

    assert name.startswith(f"{script.adapter}-")


# -- what a bench does with them


class Shelf(Bench):
    """A number that can be counted up, or is gone."""

    def __init__(self, step: int = 1, ends: int = 0) -> None:
        self.at, self.step, self.ends = 0, step, ends

    def close(self) -> None:
        """Nothing is held."""

    @act
    def add(self, n: int) -> int:
        """Count up."""
        if self.ends:
            raise Crash("it is gone")
        self.at += n * self.step
        return self.at

    @act
    def refuse(self) -> int:
        """EINVAL."""
        raise OSError(22, "Invalid argument")


HEAD = '{"adapter": "shelf", "fact": "Z.1", "row": "it counts"}\n'
COUNTS = (
    HEAD + '{"do": "add", "n": 2, "keep": "two", "gives": 2}\n{"do": "add", "n": "$two", "gives": "0x4"}\n'
    '{"do": "add", "n": 1, "when": {"two": [3]}, "gives": 9}\n{"do": "refuse", "gives": -22}\n'
)


def script(text: str, folder: Path) -> Script:
    """The script of a file of that text."""
    path = folder / f"shelf-one{SUFFIX}"
    path.write_text(text)
    return load(path)


def test_a_script_that_is_reproduced(tmp_path: Path) -> None:
    """Kept results are arguments and conditions, and an errno that is raised is a result."""
    played = play(script(COUNTS, tmp_path), Shelf())

    assert (played.outcome, played.compared) == (Came.SAME, 3)


def test_the_first_difference_is_told(tmp_path: Path) -> None:
    """With the act, what it gave and what was measured."""
    played = play(script(COUNTS, tmp_path), Shelf(step=300))

    assert played.outcome is Came.DIFFERENT
    assert played.difference == "act 1 of 4, add(n=2) gave 0x258, measured was 2"


def test_a_finding_that_does_not_show_is_no_difference(tmp_path: Path) -> None:
    """A right implementation does otherwise."""
    text = COUNTS.replace('"it counts"', '"it counts", "finding": "SHELF-1"')

    assert play(script(text, tmp_path), Shelf(step=3)).outcome is Came.RIGHT


def test_a_script_of_which_nothing_is_there_is_left_out(tmp_path: Path) -> None:
    """It is not counted as reproduced."""
    text = HEAD + '{"do": "add", "n": 1, "keep": "n"}\n{"do": "add", "n": 1, "when": {"n": [7]}, "gives": 2}\n'

    assert play(script(text, tmp_path), Shelf()).outcome is Came.ABSENT


def test_what_ends_under_a_script_is_asked_once_more(tmp_path: Path) -> None:
    """A second time it is an error of ours, with the script's name."""
    benches = [Shelf(ends=1), Shelf()]
    (played,) = play_all([script(COUNTS, tmp_path)], lambda: benches.pop(0))

    assert played.outcome is Came.SAME
    with pytest.raises(HarnessError, match="shelf-one: it is gone"):
        list(play_all([script(COUNTS, tmp_path)], lambda: Shelf(ends=1)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a script"),
        (HEAD + "{", "not a script"),
        (HEAD.replace("row", "rho"), "its first line has the texts"),
        (HEAD + '{"do": "sub", "gives": 1}', "no act 'sub'; known: add, refuse"),
        (HEAD + '{"do": "add", "m": 1, "gives": 1}', "missing a required argument"),
        (HEAD + '{"do": "add", "n": 1}', "nothing is compared"),
    ],
)
def test_what_is_no_script_is_refused(text: str, said: str, tmp_path: Path) -> None:
    """All of them are ours."""
    with pytest.raises(HarnessError, match=re.escape(said)):
        check(script(text, tmp_path), Shelf)


# -- the real things


@pytest.fixture
def made(request: pytest.FixtureRequest) -> Callable[[str], Adapter]:
    """Adapters by name; the test is skipped where one cannot be had."""

    def of(name: str) -> Adapter:
        kind = KINDS[name][1]
        try:
            if name.startswith("linux"):
                return kind(request.getfixturevalue("kernel"))  # type: ignore[call-arg]  # it takes a version
            return kind()
        except UsageError as error:
            pytest.skip(str(error))

    return of


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_facts_hold(made: Callable[[str], Adapter], name: str) -> None:
    """What was measured is what is there."""
    adapter = made(SCRIPTS[name].adapter)

    (played,) = play_all([SCRIPTS[name]], adapter.bench)

    assert played.outcome is _expected(name, adapter), played.difference


def _expected(name: str, adapter: Adapter) -> Came:
    """Kernels of before have no prefault, and do not turn AVIC on again once an id was changed."""
    if name == "linux_tdpmmu-pre-fault" and not getattr(adapter, "prefaults", False):
        return Came.ABSENT
    if name == "linux_avic-entry-of-a-changed-id" and not getattr(adapter, "tells_aliases", False):
        return Came.RIGHT
    return Came.SAME


BROKEN = {
    "kvm_lapic": ("set_msr", 1),
    "bochs_cet": ("wrmsr", 0),
    "linux_vfio": ("set_irqs", 0),
    "linux_uio": ("raise_line", 0),
    "linux_avic": ("set_register", 0),
    "linux_tdpmmu": ("set_region", 0),
}
"""By adapter: an act that is left out, and what is said instead."""


@pytest.mark.parametrize("name", BROKEN)
def test_a_call_that_is_left_out_is_noticed_by_a_run(
    made: Callable[[str], Adapter], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says which rows are not reproduced, in one sentence, and the rest of the corpus is judged all the same."""
    of, _, bench = KINDS[name]
    act_name, said = BROKEN[name]
    adapter = made(name)
    monkeypatch.setattr(bench, act_name, lambda _bench, **_arguments: said)
    monkeypatch.setattr(corpus, "files", lambda _folder: [])
    candidate = from_adapter(adapter, f"real:{name}")
    context = Context(candidate.part(subsystem(of)), candidate, candidate.profile)

    with pytest.raises(HarnessError, match=rf"real:{name} does not reproduce what was measured: .* measured was"):
        corpus.run(context)

    assert context.notes[f"measured facts {Came.DIFFERENT.value}"] >= 1


def test_a_run_ends_as_one_that_cannot_tell(monkeypatch: pytest.MonkeyPatch, made: Callable[[str], Adapter]) -> None:
    """An error of ours among its results, with the row; what the traces showed is there."""
    made("kvm_lapic")
    monkeypatch.setattr(KvmBench, "set_msr", lambda _bench, **_arguments: 1)

    result = unit.run_unit(Unit("avic", "real:kvm-lapic", None, "corpus"))

    assert len(result.errors) == 1
    assert "A.5, EXTD without EN is refused; off, xAPIC, x2APIC" in result.errors[0]
    assert result.traces > 10
