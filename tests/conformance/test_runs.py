"""Units, results and conclusions: what a run says, and the exit code it says it with."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from conformance.candidates.load import Candidate
from conformance.engines import campaign, explore
from conformance.runs import conclusion, unit
from conformance.runs.conclusion import conclude, worst
from conformance.runs.request import Request, Unit, units
from conformance.runs.result import Result
from conformance.runs.unit import run_unit
from conformance.runs.work import Work
from conformance.verdict import Exit, HarnessError, UsageError, Verdict
from tests import toy
from tests.toy import TOY, Shelf
from tests.toyland import in_short


class Leaky(Shelf):
    """Forgets to free."""

    def take(self) -> int:
        """Skip the free for the last slot."""
        if len(self.items) == 2:
            return self.items.pop()[0]
        return super().take()


CANDIDATES: dict[str, type] = {"good": Shelf, "leaky": Leaky}


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run finds the toy subsystem and its candidates."""

    def load(spec: str, _of: Any) -> Candidate:
        return Candidate(spec, CANDIDATES[spec], "upstream", frozenset())

    for module in (conclusion, unit):
        monkeypatch.setattr(module, "subsystem", lambda _name: TOY)
    monkeypatch.setattr(unit, "load", load)
    in_short(monkeypatch)


def run(spec: str, *engines: str, **options: Any) -> list[Result]:
    """All units of a request on one candidate."""
    return [run_unit(unit) for unit in units(Request((("toy", spec),), engines=engines, **options))]


def test_a_part_of_the_work_is_no_verdict() -> None:
    """What was exercised passed; a MUST that nothing exercised keeps it from saying more."""
    conclusion = conclude(run("good", "explore", "campaign"), complete=False)

    assert (conclusion.exit, conclusion.failures) == (Exit.INCONCLUSIVE, [])
    assert conclusion.why.startswith("inconclusive: no failure in the part of the work that was done, ")
    assert conclusion.verdicts[toy.STORED] is Verdict.PASS
    assert conclusion.verdicts[toy.ROBUST] is Verdict.NOT_EXERCISED


def test_a_correct_candidate_conforms() -> None:
    """In the clauses that were judged; the last line says how many were not, and that work was left out."""
    results = run("good", "explore", "campaign")

    whole = conclude(results, only="TOY-00[1-6]")
    part = conclude(results, complete=False, only="TOY-00[1-6]")

    assert (whole.exit, whole.why) == (Exit.CONFORMS, "conforms: 6 clauses passed, the other 6 were not judged")
    assert part.why.startswith("as far as the part of the work goes that was done, conforms: ")


def test_a_should_clause_that_is_not_followed_did_not_pass() -> None:
    """It has a verdict of its own, which the last line counts."""
    results = run("good", "explore", "campaign")
    broken = {**run("leaky", "explore")[0].failures[0], "clause": toy.TIDY.id, "mismatch": "should"}
    results[0].warnings.append(broken)

    conclusion = conclude(results, only="TOY-*")
    strict = conclude(results, strict=True)

    assert conclusion.verdicts[toy.TIDY] is Verdict.NOT_FOLLOWED
    assert strict.verdicts[toy.TIDY] is Verdict.FAIL
    assert strict.exit is Exit.DOES_NOT_CONFORM
    assert (strict.warnings, [f.signature for f in strict.failures]) == ([], [f.signature for f in conclusion.warnings])


def test_a_must_that_nothing_exercised_is_inconclusive() -> None:
    """Silence is not conformance."""
    conclusion = conclude(run("good", "explore"))

    assert conclusion.exit is Exit.INCONCLUSIVE
    assert "TOY-008" in conclusion.why


def test_a_wrong_candidate_does_not_conform() -> None:
    """The clause is named, and the smallest of the units' traces is kept."""
    conclusion = conclude(run("leaky", "explore", "campaign"))

    assert conclusion.exit is Exit.DOES_NOT_CONFORM
    assert conclusion.verdicts[toy.STORED] is Verdict.FAIL
    assert {len(f.trace.steps) for f in conclusion.failures if f.trace} == {3}


def test_a_known_failure_conforms() -> None:
    """A signature in the baseline is reported as known."""
    results = run("leaky", "explore")
    results[0].known = {data["signature"]: "" for data in results[0].failures}

    conclusion = conclude(results, complete=False)

    assert conclusion.exit is Exit.INCONCLUSIVE  # for the MUSTs that one engine did not exercise
    assert conclusion.verdicts[toy.STORED] is Verdict.KNOWN


def test_results_cross_process_borders_as_plain_data() -> None:
    """A result that went through JSON concludes the same."""
    results = run("leaky", "explore")
    again = [msgspec.convert(msgspec.json.decode(msgspec.json.encode(r)), Result) for r in results]

    assert conclude(again).failures == conclude(results).failures


def test_shards_divide_the_work() -> None:
    """Every unit is in exactly one shard."""
    whole = units(Request((("toy", "good"),)))
    shards = [units(Request((("toy", "good"),), shard=(i, 3))) for i in (1, 2, 3)]

    assert sorted(u.name for shard in shards for u in shard) == sorted(u.name for u in whole)


def test_a_budget_is_shared_by_the_units() -> None:
    """What the units may take together is the budget times the workers."""
    hunt = units(Request((("toy", "good"),), budget=60.0, workers=2))

    assert sum(unit.seconds or 0 for unit in hunt) == pytest.approx(120.0)


@pytest.mark.parametrize("took", [0.0, 25.0])
def test_the_rest_of_a_hunt_has_what_is_left(took: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the first unit ends at once or long after its time; each has its share when it begins."""
    clock = [100.0]
    monkeypatch.setattr("conformance.runs.work.time.monotonic", lambda: clock[0])
    request = Request((("toy", "good"),), budget=60.0, workers=1)
    planned = units(request)
    work, given = Work(planned, request), list[float]()

    for number, job in enumerate(work):
        given.append(job.seconds or 0.0)
        clock[0] += given[-1] if number else took
        work.learn(number, Result(job.name, job.subsystem, job.spec, "", []))

    assert given[0] == pytest.approx(planned[0].seconds)
    assert clock[0] == pytest.approx(160.0)
    assert given[1:] == pytest.approx([(u.seconds or 0.0) * (60 - took) / (60 - given[0]) for u in planned[1:]])


def test_workers_share_what_is_left() -> None:
    """Two at once: what one of them is still busy with is not given away."""
    request = Request((("toy", "good"),), budget=600.0, workers=2)
    planned = units(request)

    given = [job.seconds or 0.0 for job in Work(planned, request)]

    assert given == pytest.approx([min(job.seconds or 0.0, 600.0) for job in planned], rel=0.01)


def test_a_harness_error_is_neither_pass_nor_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 3 with the sentence."""

    def broken(_context: Any) -> None:
        raise HarnessError("the simulator is out of paper")

    monkeypatch.setattr(explore, "run", broken)

    conclusion = conclude(run("good", "explore"))

    assert conclusion.exit is Exit.HARNESS
    assert "out of paper" in conclusion.why


def test_an_interrupted_unit_keeps_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle leaves a partial, inconclusive result."""

    def interrupted(_context: Any) -> None:
        raise KeyboardInterrupt

    results = run("good", "explore")
    monkeypatch.setattr(campaign, "run", interrupted)
    results += run("good", "campaign")

    conclusion = conclude(results, complete=False)

    assert conclusion.interrupted
    assert conclusion.exit is Exit.INCONCLUSIVE


def test_a_profile_that_does_not_exist_is_a_usage_error() -> None:
    """With the nearest that does."""
    with pytest.raises(UsageError, match="did you mean 'upstream'"):
        run_unit(Unit("toy", "good", "upstrem", "explore"))


def test_the_worst_exit_decides() -> None:
    """A usage error beats a harness error beats a failure beats an inconclusive run."""
    assert worst([Exit.CONFORMS, Exit.INCONCLUSIVE, Exit.DOES_NOT_CONFORM]) is Exit.DOES_NOT_CONFORM
    assert worst([Exit.HARNESS, Exit.DOES_NOT_CONFORM]) is Exit.HARNESS
    assert worst([]) is Exit.NOTHING_RAN


def test_a_pattern_restricts_what_is_judged() -> None:
    """Clauses outside it have no verdict, and failures of theirs do not count."""
    results = run("leaky", "explore", "campaign")

    judged = conclude(results, complete=False, only="TOY-00[2-6]")

    assert [clause.id for clause in judged.verdicts] == [f"TOY-{n:03d}" for n in range(2, 7)]
    assert (judged.exit, judged.failures) == (Exit.CONFORMS, [])
