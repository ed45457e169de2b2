"""Firmware, its mailbox and the RMP, each alone: they behave, and they say who broke what."""

from __future__ import annotations

from conformance.environment.door import Environment
from conformance.environment.snp_guest_request.crypto import STAND_IN
from conformance.environment.snp_guest_request.files import CLOSED_FD, FOREIGN_FD, Files
from conformance.environment.snp_guest_request.ghcbs import Ghcbs
from conformance.environment.snp_guest_request.messages import request_page
from conformance.environment.snp_guest_request.report import Header
from conformance.environment.snp_guest_request.tasks import Task
from conformance.model.snp_guest_request.addresses import GPA
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request import constants as k
from tests.conformance.snp_guest_request.machine import IN_PLACE, C, breaks, machine, refuse

# -- the secure processor


def test_a_file_is_the_secure_processor_s_until_it_is_closed() -> None:
    """Its number may then mean another."""
    files = Files(Environment())
    fd = files.of_vm[0] = files.opened()

    assert files.is_secure_processor(fd)
    assert files.is_secure_processor(k.NO_FD)
    assert not files.is_secure_processor(CLOSED_FD)
    assert not files.is_secure_processor(FOREIGN_FD)
    files.close(0, foreign=True)
    assert not files.is_secure_processor(fd)


def test_a_command_that_is_kept_from_firmware_leaves_the_status_alone() -> None:
    """SNP-019: half of it is written when firmware answers, or when it does not."""
    mailbox = machine().mailbox

    assert mailbox.command("snp_config", CLOSED_FD, 0x1234) == (-k.EBADF, 0x1234)
    refuse(mailbox.door, "snp_config", k.INVALID_PARAM)
    assert mailbox.command("snp_config", k.NO_FD, 7 << 32 | 5) == (-k.EIO, 7 << 32 | k.INVALID_PARAM)
    refuse(mailbox.door, "snp_config", -k.ETIMEDOUT)
    assert mailbox.command("snp_config", k.NO_FD, 7 << 32 | 5) == (-k.ETIMEDOUT, 7 << 32)
    assert mailbox.psp_is_dead() == 1
    assert mailbox.command("snp_config", k.NO_FD, 5) == (-k.EBUSY, 5)


def test_a_guest_context_lives_from_create_to_decommission() -> None:
    """Each command asks for the state before it."""
    here = machine()
    fd, page = here.files.opened(), here.memory.alloc_fw_page() | C

    assert here.contexts.snp_launch_start(fd, page, 1 << 17, 0) == (-k.EIO, k.INVALID_GUEST)
    context = here.launch()
    assert here.contexts.snp_activate(fd, context, 77, 0) == (-k.EIO, k.INVALID_ASID)
    assert here.contexts.view() == (("running", "none"), ((0, 0, 0, 0), ()))
    assert here.contexts.snp_decommission(fd, context, 0) == (0, 0)
    assert here.contexts.view() == (("none", "none"), ((), ()))
    assert here.contexts.snp_gctx_create(fd, here.memory.alloc_page(1) | C, 0) == (-k.EIO, k.INVALID_PAGE_STATE)


def test_an_asid_is_freed_after_its_context_and_once() -> None:
    """SNP-074, SNP-073."""
    here = machine()
    context = here.launch()

    with breaks(c.DESTROY_ORDER):
        here.contexts.free_asid(1)
    with breaks(c.DECOMMISSION_FAILED):
        here.contexts.free_asid(1)
    here.contexts.asids[1] = 0
    refuse(here.door, "snp_decommission", -k.EBUSY)
    here.tasks.begin(Task(None, 0, -1))
    here.contexts.snp_decommission(k.NO_FD, context, 0)
    with breaks(c.DECOMMISSION_FAILED):
        here.contexts.free_asid(1)


def test_firmware_answers_on_the_response_page() -> None:
    """A good message; a bad one has a status."""
    here = machine()
    context = here.launch()
    request, response = here.ask()

    assert here.requests.snp_guest_request(k.NO_FD, context, request, response, 0) == (0, 0)
    assert Header.decode(bytes(here.memory.frame(response >> 12 & 0xFFFFFF).data)).number == 2
    request, response = here.ask("bad-tag")
    assert here.requests.snp_guest_request(k.NO_FD, context, request, response, 0) == (-k.EIO, k.BAD_MEASUREMENT)
    assert (here.tasks.current.issued, here.tasks.current.ran) == (2, 2)


def test_a_command_on_the_wrong_pages_is_found() -> None:
    """No C-bit, no such page, a response page that is not firmware's, no context."""
    here = machine()
    context = here.launch()
    request, response = here.ask()
    command = here.requests.snp_guest_request

    with breaks(c.ONE_COMMAND):
        command(k.NO_FD, context, request & ~C, response, 0)
    with breaks(c.ONE_COMMAND):
        command(k.NO_FD, context, request, 0x1234000 | C, 0)
    with breaks(c.RESPONSE_FIRMWARE_OWNED):
        command(k.NO_FD, context, response, request, 0)
    with breaks(c.NO_CONTEXT):
        command(k.NO_FD, 0x1234000 | C, request, response, 0)
    here.memory.memset(request & ~C, 0, 8)
    here.tasks.current.instants.append(request_page(STAND_IN, "report", 0, 0, 0))
    with breaks(c.WHOLE_REQUEST):
        command(k.NO_FD, context, request, response, 0)


def test_a_dead_secure_processor_configures_nothing() -> None:
    """The reported TCB stays."""
    here = machine()

    assert here.requests.snp_config(7) == 0
    here.mailbox.dead = True
    assert here.requests.snp_config(8) == -k.EBUSY
    assert here.requests.firmware.reported_tcb == 7


# -- the RMP


def test_a_page_goes_to_firmware_and_comes_back() -> None:
    """Assigned, reclaimed, shared."""
    here = machine(IN_PLACE)
    here.memslots.populate(0)
    pfn = here.memslots.gfn_to_pfn(0, GPA["P0"] >> 12)

    assert here.rmp.rmp_make_private(pfn, 0, 0, 1) == 0
    assert here.rmp.rmp_lookup(pfn) == k.FIRMWARE
    assert here.rmp.view() == ((("P0", k.FIRMWARE),), ())
    assert here.rmp.snp_page_reclaim(pfn) == 0
    assert here.rmp.rmp_lookup(pfn) == k.RECLAIM
    assert here.rmp.rmp_make_shared(pfn) == 0
    here.rmp.settle()
    assert here.rmp.view() == ((), ())


def test_a_page_that_is_not_the_guest_s_to_give_is_found() -> None:
    """SNP-029: private, or a GHCB; with bounce pages no guest page is (SNP-027)."""
    here, bounced = machine(IN_PLACE), machine()
    for one in (here, bounced):
        one.memslots.populate(0)
    Ghcbs(here.door, here.tasks, here.memslots).register(0, GPA["G0"])

    for name in ("private", "G0"):
        with breaks(c.RESPONSE_PAGE_FREE):
            here.rmp.rmp_make_private(here.memslots.gfn_to_pfn(0, GPA[name] >> 12), 0, 0, 1)
    with breaks(c.GUEST_PAGES_STAY):
        bounced.rmp.rmp_make_private(bounced.memslots.gfn_to_pfn(0, GPA["P0"] >> 12), 0, 0, 1)


def test_a_page_that_is_not_had_back_is_found() -> None:
    """Shared before it was reclaimed, kept, leaked for no reason."""
    here = machine(IN_PLACE)
    here.memslots.populate(0)
    pfn = here.memslots.gfn_to_pfn(0, GPA["P0"] >> 12)
    here.rmp.rmp_make_private(pfn, 0, 0, 1)

    with breaks(c.RECLAIM_FIRST):
        here.rmp.rmp_make_shared(pfn)
    with breaks(c.RESPONSE_PAGE_BACK):
        here.rmp.settle()
    with breaks(c.RESPONSE_PAGE_BACK):
        here.rmp.leak_page(pfn)
    here.mailbox.dead = True
    assert here.rmp.snp_page_reclaim(pfn) == -k.EBUSY
    assert here.rmp.leak_page(pfn) == 0
    here.rmp.settle()
    with breaks(c.RECLAIM_FAILED):
        here.rmp.rmp_make_shared(pfn)


def test_a_bounce_page_that_outlives_its_vm_is_found() -> None:
    """SNP-037."""
    here = machine()
    here.memory.alloc_fw_page()

    with breaks(c.BOUNCE_PAGES):
        here.rmp.judge_gone(0)
