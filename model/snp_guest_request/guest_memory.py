"""What the hypervisor finds in a guest's memory, and how it changes."""

from __future__ import annotations

from conformance.model.snp_guest_request.addresses import INDEX, address, page_at
from conformance.model.snp_guest_request.messages import MESSAGES
from conformance.model.snp_guest_request.operations import CPU_OF, ExtGuestRequest, Request
from conformance.model.snp_guest_request.state import Label, State, Vm, with_vm
from conformance.specs.snp_guest_request.constants import REPORT_REQ


def is_composed(op: Request) -> bool:
    """Whether the request page is the one the guest left its message in."""
    return op.req == "R"


def asks_report(op: Request) -> bool:
    """Whether the hypervisor finds a report request there."""
    return is_composed(op) and MESSAGES[op.message].type == REPORT_REQ


def is_readable(vm: Vm, op: Request) -> bool:
    """Whether the request page is there."""
    page = page_at(address(op.req, CPU_OF[op.vcpu]))
    return page is not None and page not in vm.removed


def is_writable(vm: Vm, gpa: int) -> bool:
    """Whether the guest has a page there that the host may write."""
    page = page_at(gpa)
    return page is not None and page not in vm.removed and page != "readonly"


def data_gpa(op: ExtGuestRequest) -> int:
    """RAX as a handler that ignores valid bits has it: 0 when it was not supplied."""
    return 0 if "a" in op.missing else address(op.data, CPU_OF[op.vcpu])


def with_page(state: State, number: int, gpa: int, label: Label) -> State:
    """Another content of a watched page; pages that nobody watches have none."""
    page = page_at(gpa)
    if page not in INDEX:
        return state
    i = INDEX[page]
    pages = state.vms[number].pages
    return with_vm(state, number, pages=(*pages[:i], label, *pages[i + 1 :]))
