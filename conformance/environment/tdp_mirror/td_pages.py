"""Pages of guest memory that the TD has: references to them, and how they are cleaned when they come back."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.secure_ept import SecureEpt
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import Profile
from conformance.specs.tdp_mirror import clauses as c
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment


class TdPages(Simulator):
    """The host's side of pages that it gives to the TD: pinned while they are there, written back and cleared after.

    Not modelled: contents and cache lines; what is left to do to a page is remembered instead.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.BALANCED,
        c.FAILED_REMOVE_KEEPS_PAGE,
        c.REMOVAL_SEQUENCE,
    )

    def __init__(self, door: Environment, profile: Profile, sept: SecureEpt) -> None:
        super().__init__(door)
        self.are_pinned = profile.pins_pages
        self.sept = sept
        self.pins: dict[int, int] = {}
        """Page frame to references of the TD."""
        self.unclean: dict[int, set[str]] = {}
        """Page frame to what must still be done before the host may use it."""
        self.given: tuple[int, ...] = ()
        """Pages that went to the TD, whose references whoever gave them has still to show."""
        self.handed_back = 0
        """Page that went back to the host though the TD may still map it, where that is not forbidden."""

    def given_away(self, pfn: int) -> None:
        """A page goes to the TD, and whoever resolved it has it until the hook or the operation is over."""
        self.given = (*self.given, pfn)

    def judge_given(self) -> None:
        """Where pages are pinned, those that went to the TD have their reference by now (TDP-079)."""
        given, self.given = self.given, ()
        for pfn in given if self.are_pinned else ():
            if not self.pins.get(pfn) and self.sept.has_page(pfn):
                raise Violation(c.FAILED_REMOVE_KEEPS_PAGE, f"page {pfn:#x} given to the TD without a reference")

    def taken_out(self, pfn: int) -> None:
        """The firmware removed a page."""
        self.unclean[pfn] = {"wbinvd", "clear"}

    def go_back(self, pfn: int) -> None:
        """A page goes back to the host while the TD may map it, unless a reference keeps it (TDP-079)."""
        if self.pins.get(pfn) or not self.sept.config.deep:
            return
        if self.are_pinned:
            raise Violation(c.FAILED_REMOVE_KEEPS_PAGE, f"page {pfn:#x} goes back to the host while the TD may map it")
        self.handed_back = pfn

    # -- environment calls

    def page_pin(self, pfn: int) -> None:
        """Take a reference."""
        self.pins[pfn] = self.pins.get(pfn, 0) + 1

    def page_unpin(self, pfn: int) -> None:
        """Put it; not while the TD may still use the page (TDP-079)."""
        if self.pins.get(pfn, 0) <= 0:
            raise Violation(c.BALANCED, f"page_unpin({pfn:#x}): no reference is held")
        if self.sept.has_page(pfn):
            raise Violation(c.FAILED_REMOVE_KEEPS_PAGE, f"page {pfn:#x} is let go while the external tree maps it")
        if self.unclean.get(pfn):
            raise Violation(
                c.REMOVAL_SEQUENCE, f"page {pfn:#x} is let go before {', '.join(sorted(self.unclean[pfn]))}"
            )
        self.pins[pfn] -= 1

    def tdh_phymem_page_wbinvd(self, pfn: int) -> int:
        """Write back."""
        self.unclean.get(pfn, set()).discard("wbinvd")
        return 0

    def clear_page(self, pfn: int) -> None:
        """Overwrite; only after the caches were written back (TDP-097)."""
        missing = self.unclean.get(pfn)
        if missing and "wbinvd" in missing:
            raise Violation(c.REMOVAL_SEQUENCE, f"page {pfn:#x} cleared before its cache lines were written back")
        if missing:
            missing.discard("clear")
