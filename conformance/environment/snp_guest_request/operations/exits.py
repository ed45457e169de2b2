"""VMGEXIT: a guest leaves a message and exits, userspace answers, and what the guest finds is looked at."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from conformance.environment.snp_guest_request.contents import USER_TABLE
from conformance.environment.snp_guest_request.frames import Page
from conformance.environment.snp_guest_request.ghcbs import Ghcb
from conformance.environment.snp_guest_request.messages import request_page
from conformance.model.snp_guest_request.addresses import GPA, address
from conformance.model.snp_guest_request.messages import MESSAGES
from conformance.model.snp_guest_request.operations import (
    CPU_OF,
    VM_OF,
    Continue,
    ExtGuestRequest,
    GuestRequest,
    UnknownExit,
)
from conformance.model.snp_guest_request.results import UNTOUCHED
from conformance.model.snp_guest_request.state import ghcb_page
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import (
    EXIT,
    EXT_GUEST_REQUEST,
    GHCB_RAX,
    GHCB_RBX,
    GHCB_RCX,
    GHCB_RDX,
    GHCB_SW_EXITCODE,
    GHCB_SW_EXITINFO1,
    GHCB_SW_EXITINFO2,
    GHCB_USAGE,
    GHCB_VALID_BITMAP,
    GUEST_REQUEST,
    MALFORMED,
    PAGE_SIZE,
    REPORT_REQ,
    RESUME,
    TOO_SMALL_INFO2,
)
from conformance.verdict import Crash, Violation

if TYPE_CHECKING:
    from conformance.environment.snp_guest_request.world import World


RAX_OF_BASIC, RBX_OF_BASIC, RCX, RDX = 0x5A5A_0001, 0x5A5A_0002, 0x5A5A_0003, 0x5A5A_0004
_LETTERS = {
    "c": GHCB_SW_EXITCODE,
    "1": GHCB_SW_EXITINFO1,
    "2": GHCB_SW_EXITINFO2,
    "a": GHCB_RAX,
    "b": GHCB_RBX,
    "x": GHCB_RCX,
    "d": GHCB_RDX,
}
_REGISTERS = {GHCB_RAX: "a", GHCB_RBX: "b", GHCB_RCX: "x", GHCB_RDX: "d"}
_STALE = 0x5A << 40
"""What differs in a register that the guest does not supply from the one it would."""
_RACES = {
    "info1": ((GHCB_SW_EXITINFO1 + 1, 0x10),),
    "info2": ((GHCB_SW_EXITINFO2 + 1, 0x10),),
    "rax": ((GHCB_RAX + 1, 0x10),),
    "rbx": ((GHCB_RBX, 0x3),),
    "code": ((GHCB_SW_EXITCODE, GUEST_REQUEST & 0xFF ^ EXT_GUEST_REQUEST & 0xFF),),
    "valid": (
        (GHCB_VALID_BITMAP + GHCB_RAX // 64, 1 << GHCB_RAX // 8 % 8),
        (GHCB_VALID_BITMAP + GHCB_RBX // 64, 1 << GHCB_RBX // 8 % 8),
    ),
    "usage": ((GHCB_USAGE, 1),),
}
"""Bytes of the GHCB that the guest changes, and the bits of them."""


@lru_cache(maxsize=4096)
def ghcb_bytes(code: int, info1: int, info2: int, rax: int, rbx: int, missing: str, usage: int) -> bytes:
    """A GHCB as the guest fills it; fields whose valid bit is missing hold something all the same."""
    page = bytearray(PAGE_SIZE)
    valid = 0
    fields = {
        GHCB_SW_EXITCODE: code,
        GHCB_SW_EXITINFO1: info1,
        GHCB_SW_EXITINFO2: info2,
        GHCB_RAX: rax,
        GHCB_RBX: rbx,
        GHCB_RCX: RCX,
        GHCB_RDX: RDX,
    }
    absent = {_LETTERS[letter] for letter in missing}
    for offset, supplied in fields.items():
        value = supplied ^ _STALE if offset in absent and offset in _REGISTERS else supplied
        page[offset : offset + 8] = value.to_bytes(8, "little")
        if offset not in absent:
            valid |= 1 << offset // 8
    page[GHCB_VALID_BITMAP : GHCB_VALID_BITMAP + 16] = valid.to_bytes(16, "little")
    page[GHCB_USAGE : GHCB_USAGE + 4] = usage.to_bytes(4, "little")
    return bytes(page)


def request(world: World, op: GuestRequest | ExtGuestRequest) -> object:
    """Compose the message, fill the GHCB, and exit."""
    vcpu = op.vcpu
    vm, cpu = VM_OF[vcpu], CPU_OF[vcpu]
    req, resp = address(op.req, cpu), address(op.resp, cpu)
    task = world.tasks.current
    page = world.memslots.own(vm, req) if op.req == "R" else world.memslots.page(vm, req, write=False)
    if op.req == "R":
        assert page is not None
        known = world.contexts.context(vm)
        guest, count = (known.guest, known.counts[cpu]) if known is not None else (vm, 0)
        page.data[:] = request_page(world.suite, op.message, guest, cpu, count)
    task.misaligned = req % PAGE_SIZE != 0
    if page is not None:
        task.instants.append(bytes(page.data if page.shadow is None else page.shadow))
    if type(op) is ExtGuestRequest:
        code, rax, rbx = EXT_GUEST_REQUEST, address(op.data, cpu), op.npages
    else:
        code, rax, rbx = GUEST_REQUEST, RAX_OF_BASIC, RBX_OF_BASIC
    return exit_through_ghcb(world, op, code, req, resp, rax, rbx)


def unknown_exit(world: World, op: UnknownExit) -> object:
    """Exit with a code that nobody defined."""
    return exit_through_ghcb(world, op, op.code, GPA["R0"], GPA["P0"], RAX_OF_BASIC, RBX_OF_BASIC)


def exit_through_ghcb(world: World, op: Any, code: int, info1: int, info2: int, rax: int, rbx: int) -> object:
    """Fill a GHCB, and exit."""
    vcpu = op.vcpu
    vm = VM_OF[vcpu]
    gpa = GPA[ghcb_page(vcpu, getattr(op, "ghcb", "own")) or ""]
    page = world.memslots.own(vm, gpa)
    assert page is not None
    page.data[:] = ghcb_bytes(code, info1, info2, rax, rbx, op.missing, op.usage)
    ghcb = world.ghcbs.of_vcpu[vcpu]
    ghcb.gpa, ghcb.answered = gpa, {}
    supplied = {GHCB_RAX: rax, GHCB_RBX: rbx, GHCB_RCX: RCX, GHCB_RDX: RDX}
    ghcb.supplied = {
        at: v ^ _STALE if letter in op.missing else v
        for (at, letter), v in zip(_REGISTERS.items(), supplied.values(), strict=True)
    }
    ghcb.race = {at: page.data[at] ^ bits for at, bits in _RACES.get(getattr(op, "race", ""), ())}
    ghcb.raced = set()
    ghcb.missing = op.missing
    response = address_of_response(op, vcpu)
    ghcb.overlaid = GPA["G0"] <= response <= GPA["G1"] or getattr(op, "data", "") == "G"
    for sibling, other in enumerate(world.ghcbs.of_vcpu):
        if VM_OF[sibling] == vm and response == GPA[f"G{CPU_OF[sibling]}"]:
            other.overlaid = True
    return _returned(world, vcpu, page, world.enter_int(world.driver.vmgexit, vcpu, gpa))


def continue_(world: World, op: Continue) -> object:
    """Userspace answers, and the vCPU runs again."""
    ghcb = world.ghcbs.of_vcpu[op.vcpu]
    vm = VM_OF[op.vcpu]
    world.tasks.current.instants = world.runs.answer(op.vcpu, op.npages, op.ret)
    page = world.memslots.own(vm, ghcb.gpa)
    assert page is not None
    for at, bits in _RACES.get(op.race, ()):
        page.data[at] ^= bits
        ghcb.raced.add(at)
    data = world.memslots.page(vm, ghcb.supplied[GHCB_RAX], write=True)
    if op.ret == 0 and op.npages and data is not None and data.shadow is None:
        world.contents.touch(data)
        data.data[:] = USER_TABLE
    return _returned(world, op.vcpu, page, world.enter_int(world.driver.vcpu_continue, op.vcpu))


def _returned(world: World, vcpu: int, page: Page, ret: int) -> object:
    """What KVM_RUN's caller and the guest see: an errno, an exit, or the GHCB after resumption."""
    if ret == EXIT:
        return _exited(world, vcpu)
    if ret > RESUME:
        raise Crash(f"vmgexit returned {ret}, which is neither RESUME, EXIT nor an errno", "type")
    world.enter_int(world.driver.ghcb_leave, vcpu)
    world.ghcbs.judge_left(vcpu)
    task, ghcb = world.tasks.current, world.ghcbs.of_vcpu[vcpu]
    if ret < 0:
        answered = task.ghcb_written and not ghcb.overlaid
        task.left_success = answered and not _field(page, GHCB_SW_EXITINFO1) and not _field(page, GHCB_SW_EXITINFO2)
        return ret
    if not task.ghcb_written:
        return UNTOUCHED
    info1, info2, rbx = (_answer(ghcb, page, at) for at in (GHCB_SW_EXITINFO1, GHCB_SW_EXITINFO2, GHCB_RBX))
    if info1 & 0xFFFFFFFF == MALFORMED:
        info1 = MALFORMED
    if info1 not in (0, MALFORMED):
        raise Violation(c.NO_ACTION, f"SW_EXITINFO1 is {info1:#x}")
    if info1 == 0 and info2 and task.cleanup_failed:
        raise Violation(c.CLEANUP_IS_NO_STATUS, f"SW_EXITINFO2 {info2:#x} after the response page was not had back")
    if info1 == 0 and info2 >> 32 and info2 & 0xFFFFFFFF and world.profile.errors == "ghcb":
        raise Violation(c.HALVES, f"SW_EXITINFO2 is {info2:#018x}: both halves are set")
    small = info1 == 0 and info2 == TOO_SMALL_INFO2
    if not ghcb.overlaid:
        task.invalid = _invalid(page, small=small)
        _judge_registers(world, vcpu, page, {GHCB_RBX} if small else set())
    return (RESUME, info1, info2, rbx if small else None)


def _exited(world: World, vcpu: int) -> object:
    """Userspace is asked for certificates: what it finds in the run structure."""
    task, run = world.tasks.current, world.runs.of_vcpu[vcpu]
    if not isinstance(task.op, ExtGuestRequest) or MESSAGES[task.op.message].type != REPORT_REQ:
        raise Violation(c.NO_OTHER_EXIT, "an exit to userspace for a request that asks for no report")
    if VM_OF[vcpu] not in world.vms.fetching:
        raise Violation(c.ENABLE_CERTS, "an exit for certificates, which nobody enabled for this VM")
    run.instants = list(task.instants)
    return (EXIT, *run.told)


def _judge_registers(world: World, vcpu: int, page: Page, answers: set[int]) -> None:
    """The guest finds its registers as it left them, but for those that are answers."""
    ghcb, data = world.ghcbs.of_vcpu[vcpu], page.data
    for offset, supplied in ghcb.supplied.items():
        if offset in answers:
            continue
        value = int.from_bytes(data[offset : offset + 8], "little")
        raced = any(offset <= at < offset + 8 for at in ghcb.raced)
        absent = _REGISTERS[offset] in ghcb.missing
        if value != supplied and not (value == 0 and absent) and not raced:
            raise Violation(c.REGISTERS_KEPT, f"GHCB field {offset:#x} came back as {value:#x}, was {supplied:#x}")
    world.hold(c.REGISTERS_KEPT)


def _answer(ghcb: Ghcb, page: Page, offset: int) -> int:
    """What the hypervisor answered in a field, though the guest itself may have stored something over it."""
    is_guests = ghcb.overlaid or any(offset <= at < offset + 8 for at in ghcb.raced)
    return ghcb.answered[offset] if is_guests and offset in ghcb.answered else _field(page, offset)


def _invalid(page: Page, *, small: bool) -> list[str]:
    """Names of the answer's fields whose valid bit is clear."""
    valid = int.from_bytes(page.data[GHCB_VALID_BITMAP : GHCB_VALID_BITMAP + 16], "little")
    fields = {"SW_EXITINFO1": GHCB_SW_EXITINFO1, "SW_EXITINFO2": GHCB_SW_EXITINFO2}
    fields |= {"RBX": GHCB_RBX} if small else {}
    return [name for name, offset in fields.items() if not valid >> offset // 8 & 1]


def _field(page: Page, offset: int) -> int:
    return int.from_bytes(page.data[offset : offset + 8], "little")


def address_of_response(op: Any, vcpu: int) -> int:
    """Where the response of a request goes, -1 for other operations."""
    name = getattr(op, "resp", None)
    return -1 if name is None else address(name, CPU_OF[vcpu])
