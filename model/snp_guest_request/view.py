"""What can be observed from outside, and which clause a difference breaks."""

from __future__ import annotations

from typing import NamedTuple

from conformance.model.snp_guest_request.addresses import WATCHED, address, page_at
from conformance.model.snp_guest_request.guest_memory import asks_report
from conformance.model.snp_guest_request.operations import CPU_OF, VM_OF, ExtGuestRequest, Request
from conformance.model.snp_guest_request.state import Label, State
from conformance.model.step import Labels
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import SNP


class View(NamedTuple):
    """What can be observed from outside."""

    contexts: tuple[str, ...] = ()
    counts: tuple[tuple[int, ...], ...] = ()
    rmp: tuple[tuple[tuple[str, int], ...], ...] = ()
    pages: tuple[tuple[Label, ...], ...] = ()
    bugged: tuple[bool, ...] = ()
    dead: bool = False
    numbers: tuple[int, ...] = ()
    wiped: tuple[bool, ...] = ()


VIEW_CLAUSES: dict[str, Clause] = {
    "rmp": c.GUEST_PAGES_STAY,
    "counts": c.COUNTERS,
    "pages": c.SUCCESS,
    "contexts": c.CONTEXT_FAILURE,
    "bugged": c.RECLAIM_FAILED,
    "dead": c.TIMEOUT,
    "numbers": c.SEQUENCE,
    "wiped": c.WIPE,
}
"""In the order of blame."""

VIEW_LABELS: dict[str, Labels] = {
    "contexts": ("VM {}",),
    "counts": ("VM {}", "VMPCK {}"),
    "rmp": ("VM {}",),
    "pages": ("VM {}", WATCHED),
    "bugged": ("VM {}",),
    "numbers": ("VMPCK {}",),
    "wiped": ("VMPCK {}",),
}
"""What the parts of its fields are called."""


def view(state: State) -> View:
    """What can be observed of it."""
    guest = state.guest
    if guest is not None:
        return View(numbers=guest.counts, wiped=guest.wiped)
    a, b = state.vms
    first, second = (("none", ()) if vm.life == "stuck" else (vm.gstate, vm.counts) for vm in state.vms)
    return View(
        (first[0], second[0]),
        (first[1], second[1]),
        (a.moved, b.moved),
        (a.pages, b.pages),
        (a.bugged, b.bugged),
        state.dead,
    )


def cite(state: State, op: object, field: str, expected: View, got: View) -> Clause | None:
    """For data pages, the clause on certificates that decides what they hold; else the outcome's own clause.

    What is refused for its GHCB or its inputs writes nothing at all. For no context nothing is counted.
    """
    if field == "counts" and expected.contexts != got.contexts and not isinstance(op, Request):
        return c.CONTEXT_FAILURE  # who has no context counts nothing
    if not isinstance(op, Request) or field != "pages":
        return None
    number = VM_OF[op.vcpu]
    vm = state.vms[number]
    if vm.kind == SNP and vm.life != "mirror" and state.vcpus[op.vcpu].registered != op.ghcb:
        return c.REGISTERED_GHCB
    if op.usage or any(letter in op.missing for letter in "c12"):
        return c.MALFORMED_IS_INERT
    if op.race not in ("", "type"):
        return c.GHCB_SNAPSHOT
    if type(op) is not ExtGuestRequest:
        return None
    page = page_at(address(op.resp, CPU_OF[op.vcpu]))
    wrong = [
        name
        for name, want, have in zip(WATCHED, expected.pages[number], got.pages[number], strict=True)
        if want != have and name != page
    ]
    if not wrong:
        return None
    if state.certs != "kernel" and not asks_report(op):
        return c.OTHER_TYPES_ARE_BASIC
    instance, host = state.vms[number].instance, state.host_certs
    if state.certs == "kernel" and (instance or host):
        return c.INSTANCE_WINS if instance and host else c.BLOB_COPIED
    return c.EMPTY_TABLE
