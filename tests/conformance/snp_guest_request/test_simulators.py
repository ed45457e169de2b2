"""Each simulator of the machine alone: it behaves, and it says who broke what."""

from __future__ import annotations

import ast
import inspect
import textwrap

import pytest

from conformance.environment.door import Environment, Frame
from conformance.environment.simulator import Simulator
from conformance.environment.snp_guest_request.blobs import Blobs, blob_bytes, blobs_in
from conformance.environment.snp_guest_request.ghcbs import Ghcbs
from conformance.environment.snp_guest_request.ratelimit import RateLimit
from conformance.environment.snp_guest_request.run import RunStructures
from conformance.environment.snp_guest_request.tasks import Task, Tasks
from conformance.environment.snp_guest_request.user_copies import USER_BASE, UserCopies
from conformance.environment.snp_guest_request.vms import Vms
from conformance.environment.snp_guest_request.world import World
from conformance.model.snp_guest_request.addresses import GPA
from conformance.model.snp_guest_request.operations import ExtGuestRequest, GuestRequest
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request import constants as k
from conformance.verdict import Breach
from tests.conformance.snp_guest_request.machine import IN_PLACE, breaks, machine, refuse

# -- tasks and mutexes


def test_a_task_is_the_running_thread_s() -> None:
    """Another frame has another; nobody's is there while none is performed."""
    door = Environment()
    tasks = Tasks(door)
    task = tasks.begin(Task("op", 0, 0))
    door.frame, frame = Frame(), door.frame

    assert tasks.current is tasks.nobody
    door.frame = frame
    assert tasks.current is task
    tasks.end(frame)
    assert tasks.current is tasks.nobody


def test_a_mutex_is_taken_and_given_back() -> None:
    """And is free for whoever asks at the end."""
    mutexes = machine().mutexes
    mutexes.mutex_init("a")
    mutexes.mutex_lock("a")

    assert mutexes.is_held()
    assert not mutexes.are_free
    mutexes.mutex_unlock("a")
    assert mutexes.are_free
    mutexes.settle(c.LOCK_FREE_AFTER)


def test_a_mutex_that_nobody_initialised_is_found() -> None:
    """SNP-067; initialised twice it is one too many."""
    mutexes = machine().mutexes
    mutexes.mutex_init("a")

    with breaks(c.LOCK_INITIALISED):
        mutexes.mutex_lock("b")
    with breaks(c.LOCK_INITIALISED):
        mutexes.mutex_init("a")


def test_a_mutex_held_twice_or_for_ever_is_found() -> None:
    """Taken again, kept at the end, given back by somebody else."""
    mutexes = machine().mutexes
    mutexes.mutex_init("a")
    mutexes.mutex_lock("a")

    with breaks(c.LOCK_FREE_AFTER):
        mutexes.mutex_lock("a")
    with breaks(c.LOCK_FREE_AFTER):
        mutexes.settle(c.LOCK_FREE_AFTER)
    mutexes.door.frame = Frame()
    with breaks(c.LOCK_FREE_AFTER):
        mutexes.mutex_unlock("a")
    with breaks(c.LOCK_FREE_AFTER):
        mutexes.mutex_lock_killable("a")


def test_two_orders_of_two_mutexes_are_found() -> None:
    """Though they never meet."""
    mutexes = machine().mutexes
    mutexes.mutex_init("a")
    mutexes.mutex_lock("a")
    mutexes.wait_for(k.SEV_CMD_MUTEX)
    mutexes.mutex_unlock("a")
    mutexes.mutex_lock(k.SEV_CMD_MUTEX)

    with breaks(c.LOCK_ORDER):
        mutexes.mutex_lock("a")


def test_a_mutex_of_two_vms_is_found() -> None:
    """Their basic requests wait for one another."""
    here = machine(op=GuestRequest())
    here.mutexes.mutex_init("a")
    here.mutexes.mutex_lock("a")
    here.mutexes.mutex_unlock("a")
    here.tasks.current.vm = 1

    with breaks(c.VMS_INDEPENDENT):
        here.mutexes.mutex_lock("a")


def test_a_moved_vm_s_mutex_is_kept_or_made_again() -> None:
    """Once the VM is forgotten, a mutex of its own is none."""
    mutexes = machine().mutexes
    mutexes.mutex_init("a")
    mutexes.loosen(0)
    mutexes.mutex_lock("a")
    mutexes.mutex_unlock("a")
    mutexes.mutex_init("a")
    mutexes.forget(0)

    with breaks(c.LOCK_INITIALISED):
        mutexes.mutex_lock("a")


# -- host memory


def test_memory_is_handed_out_once() -> None:
    """Each address is new, and fresh bytes are poison unless zeros were asked for."""
    memory = machine().memory
    page, zeros, buffer = memory.alloc_page(0), memory.alloc_page(1), memory.kmalloc(24)

    assert len({page, zeros, buffer, memory.kzalloc(24)}) == 4
    assert memory.load(page, 1) == memory.load(buffer, 1) == 0xAA
    assert memory.load(zeros, 8) == 0
    memory.memcpy(zeros, buffer, 8)
    assert memory.load(zeros, 1) == 0xAA
    memory.memset(zeros, 0, k.PAGE_SIZE)
    assert memory.load(zeros, 8) == 0
    memory.free_page(page)
    memory.kfree(buffer)
    memory.kfree(0)


def test_memory_that_is_not_the_hypervisor_s_is_found() -> None:
    """Beyond its end, after it was freed, freed twice, never there."""
    memory = machine().memory
    buffer, page = memory.kzalloc(24), memory.alloc_page(1)
    memory.kfree(buffer)
    memory.free_page(page)

    with breaks(c.DECOMMISSION):
        memory.load(buffer, 1)
    with breaks(c.DECOMMISSION_FAILED):
        memory.kfree(buffer)
    with breaks(c.DECOMMISSION_FAILED):
        memory.free_page(page)
    with breaks(c.NO_HOST_BYTES):
        memory.memset(memory.kzalloc(24), 0, 25)
    with breaks(c.ROBUST):
        memory.load(0x1234, 1)
    with breaks(c.ROBUST):
        memory.frame(0x1234)


def test_firmware_s_page_is_neither_written_nor_freed() -> None:
    """SNP-034, SNP-035."""
    memory = machine().memory
    page = memory.alloc_fw_page()

    with breaks(c.NO_WRITE_TO_ASSIGNED):
        memory.memset(page, 0, 8)
    with breaks(c.NO_FREE_OF_ASSIGNED):
        memory.free_page(page)


def test_memory_short_is_planned() -> None:
    """Address 0, and the refusal was met."""
    memory = machine().memory
    refuse(memory.door, "alloc_page", -12)

    assert memory.alloc_page(1) == 0
    assert memory.door.frame.given == {"alloc_page": -12}


def test_a_guest_page_is_used_with_a_reference_only() -> None:
    """Which is dropped once."""
    here = machine()
    here.memslots.populate(0)
    pfn = here.memslots.gfn_to_pfn(0, GPA["P0"] >> 12)

    assert here.memory.load(pfn << 12, 1) == 0xE4
    here.memory.put_pfn(pfn)
    with breaks(c.PAGE_STAYS_IN_FLIGHT):
        here.memory.load(pfn << 12, 1)
    with breaks(c.REFERENCES_DROPPED):
        here.memory.put_pfn(pfn)


def test_what_outlives_its_vm_is_found() -> None:
    """A buffer, unless another VM took it over."""
    memory = machine().memory
    memory.kzalloc(24)

    with breaks(c.DECOMMISSION):
        memory.judge_gone(0)
    memory.move(0, 1)
    memory.judge_gone(0)
    memory.forget(0)
    with breaks(c.DECOMMISSION):
        memory.judge_gone(1)


# -- guest memory


def test_memslots_have_holes_and_pages_that_are_read_only() -> None:
    """A removed page's frame stays as long as somebody has a reference."""
    memslots = machine().memslots
    memslots.populate(0)
    pfn = memslots.gfn_to_pfn(0, GPA["P0"] >> 12)
    memslots.remove(0, GPA["P0"])

    assert memslots.gfn_to_pfn(0, GPA["P0"] >> 12) == -k.EFAULT
    assert memslots.page(0, GPA["readonly"], write=True) is None
    assert memslots.page(0, GPA["readonly"], write=False) is not None
    assert memslots.page(0, 0xB000, write=False) is None
    assert memslots.frame(pfn) is memslots.own(0, GPA["P0"])
    with breaks(c.REFERENCES_DROPPED):
        memslots.judge_gone(0)


def test_copies_go_across_pages_or_fail() -> None:
    """A hole ends them."""
    here = machine()
    here.memslots.populate(0)
    buffer = here.memory.kzalloc(2 * k.PAGE_SIZE)

    assert here.copies.read_guest(0, GPA["P0"] + 2048, buffer, k.PAGE_SIZE) == 0
    assert (here.memory.load(buffer, 1), here.memory.load(buffer + 2048, 1)) == (0xE4, 0xE5)
    assert here.copies.write_guest(0, GPA["D0"], buffer, k.PAGE_SIZE) == 0
    assert here.copies.clear_guest(0, GPA["D0"], 24) == 0
    assert here.memslots.mapped[0][GPA["D0"] >> 12].data[:25] == bytes(24) + b"\xe4"
    assert here.copies.clear_guest(0, GPA["readonly"], 24) == -k.EFAULT
    assert here.copies.read_guest(0, 0xB000, buffer, 8) == -k.EFAULT


def test_bytes_that_nobody_wrote_do_not_reach_a_guest() -> None:
    """Nor do another VM's."""
    here = machine()
    here.memslots.populate(0)
    here.memslots.populate(1)
    others = here.memory.kzalloc(64)
    here.copies.read_guest(1, GPA["P0"], others, 64)

    with breaks(c.NO_HOST_BYTES):
        here.copies.write_guest(0, GPA["P0"], here.memory.kmalloc(64), 64)
    with breaks(c.NO_HOST_BYTES):
        here.copies.write_guest(0, GPA["P0"], others, 64)


def test_a_buffer_filled_by_two_requests_is_found() -> None:
    """SNP-065: what is written back is the other one's."""
    here = machine()
    here.memslots.populate(0)
    buffer, mine = here.memory.alloc_page(1), here.door.frame
    here.copies.read_guest(0, GPA["R0"], buffer, k.PAGE_SIZE)
    here.door.frame = Frame()
    here.tasks.begin(Task(None, 0, -1))
    here.copies.read_guest(0, GPA["R1"], buffer, k.PAGE_SIZE)
    here.door.frame = mine

    with breaks(c.ONE_AT_A_TIME):
        here.copies.write_guest(0, GPA["P0"], buffer, k.PAGE_SIZE)


def test_a_caller_s_memory_ends_where_it_ends() -> None:
    """A planned fault comes once half is copied."""
    here = machine()
    user, buffer = UserCopies(here.door, here.memory), here.memory.kzalloc(64)
    user.lent, user.room = b"certificates", bytearray(12)

    assert user.copy_from_user(buffer, USER_BASE, 13) == -k.EFAULT
    assert user.copy_from_user(buffer, USER_BASE, 12) == 0
    assert user.copy_to_user(USER_BASE - 1, buffer, 12) == -k.EFAULT
    assert user.copy_to_user(USER_BASE, buffer, 12) == 0
    assert user.room == b"certificates"
    refuse(here.door, "copy_from_user", -k.EFAULT)
    user.lent = b"CERTIFICATES"
    assert user.copy_from_user(buffer, USER_BASE, 12) == -k.EFAULT
    assert here.memory.load(buffer, 8).to_bytes(8, "little") == b"CERTIFic"


# -- what pages hold


def test_pages_are_told_apart_by_what_was_put_there() -> None:
    """Zeros, a blob, or nothing known."""
    here = machine()
    here.memslots.populate(0)
    here.contents.blobs.installed["A", 32] = None
    for name, data in (("D0", bytes(24)), ("D1", blob_bytes("A", 32)), ("D2", b"else")):
        page = here.memslots.mapped[0][GPA[name] >> 12]
        here.contents.touch(page)
        page.data[: len(data)] = data

    here.contents.settle()

    assert here.contents.labels[0] == ("start", "start", "zero", ("A", 0, 32), "corrupt", "start", "start")
    here.contents.forget(0)
    assert here.contents.labels[0] == ("start",) * 7


def test_a_mixture_of_blobs_is_found() -> None:
    """SNP-056: in one page, or in the pages of one request."""
    for names, offsets in ((("D0", "D0"), (0, 32)), (("D0", "D1"), (0, 0))):
        here = machine(IN_PLACE)
        here.memslots.populate(0)
        for name, at, blob in zip(names, offsets, "AB", strict=True):
            here.contents.blobs.installed[blob, 32] = None
            page = here.memslots.mapped[0][GPA[name] >> 12]
            here.contents.touch(page)
            page.data[at : at + 32] = blob_bytes(blob, 32)

        with breaks(c.BLOB_ATOMIC):
            here.contents.settle()


def test_certificates_of_another_tcb_are_found() -> None:
    """SNP-060: a report of one TCB, certificates of another."""
    here = machine(IN_PLACE, ExtGuestRequest())
    here.memslots.populate(0)
    here.contents.blobs.certs_tcb["H"] = 2
    page = here.memslots.mapped[0][GPA["D0"] >> 12]
    here.contents.touch(page)
    page.data[:32] = blob_bytes("H", 32)

    here.contents.judge_signer(2)
    with breaks(c.CERTS_OF_SIGNER):
        here.contents.judge_signer(1)


def test_blobs_are_looked_for_in_order() -> None:
    """The newest first, then the longest."""
    blobs = Blobs(Environment())
    blobs.installed.update({("A", 16): None, ("B", 4097): None})

    assert blobs.candidates([("A", 16)]) == [("A", 16), ("B", 4097), ("A", 16)]
    assert blobs_in(blob_bytes("A", 32) + blob_bytes("B", 16)) == {"A", "B"}


# -- GHCB and run structure


def test_a_ghcb_is_mapped_read_and_left() -> None:
    """Where a page is; nowhere else."""
    here = machine()
    here.memslots.populate(0)
    ghcbs = Ghcbs(here.door, here.tasks, here.memslots)

    assert ghcbs.ghcb_map(0, 0xB000) == -k.EFAULT
    assert ghcbs.ghcb_map(0, GPA["G0"]) == 0
    ghcbs.ghcb_write(0, k.GHCB_RAX, 7)
    assert ghcbs.ghcb_read(0, k.GHCB_RAX, 8) == 7
    ghcbs.ghcb_unmap(0)
    ghcbs.judge_left(0)
    with breaks(c.ROBUST):
        ghcbs.ghcb_read(0, k.GHCB_RAX, 8)


def test_a_ghcb_changes_once_it_was_fetched() -> None:
    """SNP-012: who fetches again finds what the guest stored meanwhile; what is written was not fetched."""
    here = machine()
    here.memslots.populate(0)
    ghcbs = Ghcbs(here.door, here.tasks, here.memslots)
    ghcbs.ghcb_map(0, GPA["G0"])
    ghcbs.of_vcpu[0].race = {k.GHCB_RAX: 9}
    first = ghcbs.ghcb_read(0, k.GHCB_RAX, 1)

    assert first != 9
    assert ghcbs.ghcb_read(0, k.GHCB_RAX, 1) == 9
    assert ghcbs.of_vcpu[0].raced == {k.GHCB_RAX}
    ghcbs.ghcb_write(0, k.GHCB_RAX, 1)
    assert ghcbs.ghcb_read(0, k.GHCB_RAX, 8) == 1


def test_what_nobody_wrote_does_not_reach_a_ghcb() -> None:
    """SNP-047; and a value of more than 64 bits is none. A GHCB that stays mapped is found as well."""
    here = machine()
    here.memslots.populate(0)
    ghcbs = Ghcbs(here.door, here.tasks, here.memslots)
    ghcbs.ghcb_map(0, GPA["G0"])

    with breaks(c.NO_UNINITIALISED):
        ghcbs.ghcb_write(0, k.GHCB_SW_EXITINFO2, k.UNINITIALISED & ~0xFFFFFFFF)
    with pytest.raises(Breach, match="no 64-bit value"):
        ghcbs.ghcb_write(0, k.GHCB_RAX, 1 << 64)
    with breaks(c.REFERENCES_DROPPED):
        ghcbs.judge_left(0)


def test_the_answer_of_userspace_is_read_once() -> None:
    """SNP-063: the number of pages may be read again."""
    runs = RunStructures(Environment())
    runs.run_exit(0, k.EXIT_SNP_REQ_CERTS, GPA["D0"], 4, 0)
    runs.answer(0, 2, k.ENOSPC)

    assert (runs.run_read(0, k.RUN_NPAGES), runs.run_read(0, k.RUN_NPAGES), runs.run_read(0, k.RUN_RET)) == (2, 2, 28)
    with breaks(c.CERTS_ANSWER):
        runs.run_read(0, k.RUN_RET)


# -- rates and VMs


def test_two_requests_in_two_seconds_are_within_the_rate() -> None:
    """SNP-045: a third is not, until time has passed."""
    here = machine()
    rates = RateLimit(here.door, here.tasks, is_limited=True)

    assert [rates.ratelimit(0) for _ in range(3)] == [1, 1, 0]
    rates.seconds += 2
    assert rates.ratelimit(0) == 1
    with breaks(c.RATE):
        rates.ratelimit(1)


def test_requests_forwarded_beyond_the_rate_are_found() -> None:
    """Nobody had asked for it."""
    here = machine()
    rates = RateLimit(here.door, here.tasks, is_limited=True)
    rates.count(0)
    rates.count(0)

    with breaks(c.RATE):
        rates.count(0)
    rates.forget(0)
    rates.count(0)


def test_a_bugged_vm_stays_so_until_it_is_forgotten() -> None:
    """Fetching goes along with a move."""
    vms = Vms(Environment())
    vms.vm_bug(0)
    vms.fetching.add(0)
    vms.move(0, 1)
    vms.forget(0)

    assert (vms.bugged, vms.fetching) == ([False, False], {1})


# -- the whole


@pytest.mark.parametrize("kind", World.simulators().values(), ids=lambda kind: kind.__name__)
def test_a_simulator_names_the_clauses_that_it_cites(kind: type[Simulator]) -> None:
    """And no other; writing to a page cites the RMP's."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    methods = [node for node in body.body if isinstance(node, ast.FunctionDef)]
    names = [node for method in methods for node in ast.walk(method)]

    cited = {
        getattr(c, node.attr)
        for node in names
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "c"
    }
    if any(isinstance(node, ast.Name) and node.id == "check_write" for node in names):
        cited.add(c.NO_WRITE_TO_ASSIGNED)

    assert cited == set(kind.CLAUSES)
