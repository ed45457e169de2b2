"""Memory that a further attempt had: what it is for may go on, and what is given up is given back."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.candidates.builtin.snp_guest_request.linux import Linux
from conformance.candidates.defects.snp_guest_request.upstream import InitFailureIsSuccess
from conformance.model.snp_guest_request.operations import (
    ExtGuestRequest,
    GuestRequest,
    LaunchStart,
    SevInit,
    VmCreate,
)
from conformance.specs.snp_guest_request.constants import ENOMEM
from tests.conformance.snp_guest_request.judging import blamed, run
from tests.conformance.snp_guest_request.test_truth import refused


class TriesTwice(Linux):
    """Asks for memory once more where it is refused."""

    def __init__(self, port: Any) -> None:
        super().__init__(Twice(port))


class Twice:
    """The port, on which each allocation is tried again."""

    def __init__(self, port: Any) -> None:
        self.port = port

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.port, name)
        if name not in ("alloc_page", "alloc_fw_page", "kmalloc", "kzalloc"):
            return call
        return lambda *args: call(*args) or call(*args)


class GivesUpWithIt(TriesTwice):
    """Has a page at the second attempt, and says that it had none."""

    def sev_init(self, vm: int) -> int:
        before = self.port.port
        asked: list[int] = []
        self.port.port = Counting(before, asked)
        ret = super().sev_init(vm)
        self.port.port = before
        return ret if 0 not in asked else -ENOMEM


class Counting:
    """The port, which remembers what allocations gave."""

    def __init__(self, port: Any, given: list[int]) -> None:
        self.port = port
        self.given = given

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.port, name)
        if name not in ("alloc_page", "alloc_fw_page"):
            return call
        return lambda *args: self.given.append(call(*args)) or self.given[-1]


@pytest.mark.parametrize("call", ["alloc_page", "alloc_fw_page"])
def test_memory_that_is_had_at_the_second_attempt(call: str) -> None:
    """What it was for succeeds then; who says that it failed must have given it back."""
    trace = (VmCreate(), refused(SevInit(), call, -ENOMEM), refused(LaunchStart(), "alloc_fw_page", -ENOMEM))

    assert run(TriesTwice, *trace, started=False).failure is None
    assert blamed(run(GivesUpWithIt, *trace, started=False)) == "SNP-069"
    assert blamed(run(InitFailureIsSuccess, *trace, started=False)) == "SNP-069"


def test_memory_for_a_request_that_is_had_at_the_second_attempt() -> None:
    """The request goes on."""
    requests = [refused(kind(), "kzalloc", -ENOMEM) for kind in (GuestRequest, ExtGuestRequest)]

    assert run(TriesTwice, *requests, GuestRequest()).failure is None
