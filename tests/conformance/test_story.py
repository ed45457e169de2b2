"""What a failure tells of where it comes from, and which failures come from one place."""

from __future__ import annotations

from dataclasses import replace

from conformance.candidates.builtin.tdp_mirror.upstream import Upstream
from conformance.candidates.builtin.tdp_mirror.upstream.mmu_internal import ShadowPage
from conformance.candidates.load import Candidate, load
from conformance.lockstep import run_trace
from conformance.model import tdp_mirror
from conformance.model.step import Fault, Step
from conformance.model.tdp_mirror.operations import MmuReload, PageFault, VcpuCreate
from conformance.model.uio_msi import Config
from conformance.model.uio_msi.operations import Open, Probe
from conformance.reports import text
from conformance.reports.causes import causes
from conformance.reports.story import Story, tell
from conformance.specs.tdp_mirror.constants import EBUSY
from conformance.subsystem import subsystem
from conformance.trace import Trace
from conformance.verdict import Failure
from tests.toy import FREED_ONCE, NO_LEAK, STORED, TOY, Put, Shelf, Take, trace

UIO, TDP = subsystem("uio_msi"), subsystem("tdp_mirror")
BUSY = (Fault("ext_link", -EBUSY, 1),)


def told(failing: type[Shelf], *ops: object) -> Story:
    """The story of the failure of these steps."""
    found = run_trace(TOY, trace(*ops), failing).failure
    assert found is not None
    story = tell(found, TOY, Candidate("toy", failing, "upstream", frozenset())).story
    assert isinstance(story, Story)
    return story


def test_a_wrong_field_names_the_call_that_made_it_so() -> None:
    """Not the last step's calls, where the mistake shows, but the earlier one that left the value."""

    class Forgets(Shelf):
        def take(self) -> int:
            result, token = self.items.pop()
            self.port.free(token)
            return result

    story = told(Forgets, Put(7), Take())

    assert story.origins == ("numbers: show((7,)) in step 1, put",)
    assert story.cause == "put, show"


def test_a_field_that_nobody_changed_names_no_call() -> None:
    class Hides(Shelf):
        def _show(self) -> None:
            pass

    story = told(Hides, Put(7))

    assert story.origins == ()
    assert story.cause == "put"


def test_a_handle_in_the_sentence_names_the_call_that_gave_it() -> None:
    """A second release tells who acquired what is released; it may be steps ago."""
    probe = Step(Probe(), (Fault("ioremap", 1, 2),))
    given = load("builtin:as-posted", UIO)
    found = run_trace(UIO, Trace("uio_msi", "as-posted", Config(), (probe,)), given.factory).failure
    assert found is not None
    assert found.detail == "iounmap of 0x1000000000, which is not mapped"

    whole = tell(found, UIO, given)

    assert whole.story.origins == ("0x1000000000: ioremap(0xf0000000, 0x1000) -> 0x1000000000 in step 1, probe",)
    assert "  from      0x1000000000: ioremap(" in text.failure(whole, "builtin:as-posted")


class FreesTheSecondTwice(Upstream):
    """Gives back the tables of a refused link, and those of the second one twice."""

    refused = 0

    def free_sp(self, sp: ShadowPage) -> None:
        super().free_sp(sp)
        self.refused += 1
        if self.refused == 2:
            super().free_sp(sp)


def test_an_address_that_was_given_twice_names_the_last_time() -> None:
    """What was freed is given out again: the life that ends wrongly is told of, not the first."""
    steps = (Step(VcpuCreate(0)), Step(MmuReload(0)), *(Step(PageFault(0, 0, True), BUSY) for _ in range(2)))
    given = Candidate("toy", FreesTheSecondTwice, "upstream", frozenset())
    found = run_trace(TDP, Trace("tdp_mirror", "upstream", tdp_mirror.Config(), steps), given.factory).failure
    assert found is not None

    origins = tell(found, TDP, given).story.origins

    assert len(origins) == 1
    assert "cache_alloc" in origins[0]
    assert "in step 4, page_fault" in origins[0]


def test_a_wrong_result_has_its_operation_as_its_cause() -> None:
    refused = Step(Open(), (Fault("pci_enable_msix", 1),))
    given = load("builtin:as-posted", UIO)
    found = run_trace(UIO, Trace("uio_msi", "as-posted", Config(), (Step(Probe()), refused)), given.factory).failure
    assert found is not None
    story = tell(found, UIO, given).story
    assert (story.origins, story.cause) == ((), "open")


def test_failures_of_one_place_are_one_cause_and_the_plainest_comes_first() -> None:
    def failure(clause: object, steps: int, cause: str) -> Failure:
        made = Failure(clause, "Put", "result", "", 0, trace=trace(*[Put(1)] * steps))  # type: ignore[arg-type]  # a clause
        return replace(made, story=Story((), cause=cause))

    found = causes(
        [
            failure(STORED, 3, "put, show"),
            failure(FREED_ONCE, 2, "take, free"),
            failure(NO_LEAK, 1, "put, show"),
        ]
    )

    assert [(cause.place, [clause.id for clause in cause.clauses]) for cause in found] == [
        ("put, show", ["TOY-007", "TOY-001"]),
        ("take, free", ["TOY-006"]),
    ]
