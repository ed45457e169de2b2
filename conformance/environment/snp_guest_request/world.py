"""The world of a handler or a driver: its simulators, in the order in which they know one another."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from conformance.environment.door import Environment
from conformance.environment.snp_guest_request.blobs import Blobs
from conformance.environment.snp_guest_request.cipher import Cipher
from conformance.environment.snp_guest_request.clock import Clock
from conformance.environment.snp_guest_request.contents import Contents
from conformance.environment.snp_guest_request.crypto import REAL, STAND_IN, Suite
from conformance.environment.snp_guest_request.files import Files
from conformance.environment.snp_guest_request.ghcbs import Ghcbs
from conformance.environment.snp_guest_request.guest_contexts import GuestContexts
from conformance.environment.snp_guest_request.guest_copies import GuestCopies
from conformance.environment.snp_guest_request.guest_requests import GuestRequests
from conformance.environment.snp_guest_request.honest_host import HonestHost
from conformance.environment.snp_guest_request.loop import Loop
from conformance.environment.snp_guest_request.mailbox import Mailbox
from conformance.environment.snp_guest_request.memory import HostMemory
from conformance.environment.snp_guest_request.memslots import Memslots
from conformance.environment.snp_guest_request.mutexes import Mutexes
from conformance.environment.snp_guest_request.operations import OPERATIONS
from conformance.environment.snp_guest_request.operations.lifecycle import boot, bring_about
from conformance.environment.snp_guest_request.ratelimit import RateLimit
from conformance.environment.snp_guest_request.rmp import Rmp
from conformance.environment.snp_guest_request.run import RunStructures
from conformance.environment.snp_guest_request.secrets import SecretsPage
from conformance.environment.snp_guest_request.shared_pages import SharedPages
from conformance.environment.snp_guest_request.tasks import Task, Tasks
from conformance.environment.snp_guest_request.untrusted_host import UntrustedHost
from conformance.environment.snp_guest_request.user_copies import UserCopies
from conformance.environment.snp_guest_request.view import view
from conformance.environment.snp_guest_request.vms import Vms
from conformance.model.snp_guest_request.addresses import GPA
from conformance.model.snp_guest_request.operations import (
    VM_OF,
    Boot,
    CloseFd,
    Config,
    ExtGuestRequest,
    GuestRequest,
    HostSetExtConfig,
    RemoveSlot,
    SetInstanceCerts,
    Wait,
)
from conformance.model.snp_guest_request.state import guest_counts
from conformance.model.snp_guest_request.view import View
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import SNP
from conformance.specs.snp_guest_request.port import Port
from conformance.specs.snp_guest_request.profiles import PROFILES, Profile
from conformance.verdict import Violation

_COMPANY = (GuestRequest, ExtGuestRequest, SetInstanceCerts, HostSetExtConfig)
"""Operations on the candidate that may happen in the middle of another one."""


class World(Environment):
    """Both kinds' environment; the configuration says which one the candidate lives in."""

    PORT = Port
    OPERATIONS = OPERATIONS

    tasks: Tasks
    mutexes: Mutexes
    blobs: Blobs
    contents: Contents
    memslots: Memslots
    memory: HostMemory
    copies: GuestCopies
    user: UserCopies
    ghcbs: Ghcbs
    runs: RunStructures
    files: Files
    mailbox: Mailbox
    contexts: GuestContexts
    rmp: Rmp
    rates: RateLimit
    requests: GuestRequests
    vms: Vms

    secrets: SecretsPage
    shared: SharedPages
    cipher: Cipher
    clock: Clock
    honest: HonestHost
    host: UntrustedHost

    def __init__(self, config: Config, profile: Profile, suite: Suite = REAL) -> None:
        super().__init__()
        self.config = config
        self.profile = profile
        self.suite = suite
        tasks = self.tasks = Tasks(self)
        mutexes = self.mutexes = Mutexes(self, tasks)
        blobs = self.blobs = Blobs(self)
        contents = self.contents = Contents(self, tasks, blobs, profile)
        memslots = self.memslots = Memslots(self, contents)
        memory = self.memory = HostMemory(self, tasks, memslots, contents, profile)
        self.copies = GuestCopies(self, tasks, memory, memslots, contents)
        self.user = UserCopies(self, memory)
        self.ghcbs = Ghcbs(self, tasks, memslots)
        self.runs = RunStructures(self)
        files = self.files = Files(self)
        mailbox = self.mailbox = Mailbox(self, tasks, mutexes, files)
        contexts = self.contexts = GuestContexts(self, tasks, memory, mailbox)
        self.rmp = Rmp(self, tasks, memory, contents, mailbox, profile)
        rates = self.rates = RateLimit(self, tasks, is_limited=config.throttle)
        self.requests = GuestRequests(self, tasks, memory, contents, mailbox, contexts, rates, profile, suite)
        self.vms = Vms(self)
        self.of_guest = config.side == "guest"
        self.serial = 0
        """Kind G: reports asked for so far, so that no two are over the same data."""
        if self.of_guest:
            self._add_guest(guest_counts(config))

    def _add_guest(self, counts: tuple[int, ...]) -> None:
        """Kind G: a guest's kernel, and the host around it."""
        suite, config = self.suite, self.config
        self.secrets = SecretsPage(self, counts)
        shared = self.shared = SharedPages(self, self.tasks, self.mutexes)
        self.cipher = Cipher(self, shared, suite)
        clock = self.clock = Clock(self)
        if config.host == "direct":
            self.honest = HonestHost(self, shared, suite, counts)
        else:
            self.honest = Loop(self, shared, suite, counts, lambda: started_machine(suite, config.count))
        self.host = UntrustedHost(self, self.tasks, shared, clock, self.honest, suite)

    def begin(self, factory: Callable[[Any], Any]) -> None:
        """Create the candidate, and bring the world to where the configuration has it."""
        self.factory = factory
        super().begin(factory)
        if self.of_guest:
            if self.config.open:
                self._begin(lambda: bring_about(self, c.SEQUENCE, "open", 0), 0)
            return
        config = self.config
        if config.side == "verifier":
            return
        if config.started:
            self._begin(lambda: boot(self, Boot(0, SNP, config.certs)), 0)
            self._count(config.count)
            if config.vcpus > 1:
                self._begin(lambda: bring_about(self, c.INIT_FAILURE, "vcpu_create", 1, 0), 0)
                self.ghcbs.register(1, GPA["G1"])
                self._begin(lambda: bring_about(self, c.INIT_FAILURE, "ghcb_register", 1, GPA["G1"]), 0)
        if config.second:
            self._begin(lambda: boot(self, Boot(1, config.second)), 1)

    def _begin(self, work: Callable[[], object], vm: int) -> None:
        """One step of the start: it comes about and leaves nothing behind, as an operation would."""
        self.tasks.begin(Task(None, vm, -1))
        try:
            work()
        except Violation as violation:
            raise self.remember(violation) from None
        self.tasks.end(self.frame)
        self.frame = type(self.frame)()

    def _count(self, count: int) -> None:
        """Firmware has counted so many messages under VMPCK 0 of the VM that runs already."""
        context = self.contexts.context(0)
        if context is not None and context.state == "running":
            context.counts[0] = count

    def act(self, op: Any) -> Any:
        """Perform an operation, and judge what must hold whenever one has ended."""
        frame = self.frame
        vcpu = getattr(op, "vcpu", -1)
        task = self.tasks.begin(Task(op, VM_OF[vcpu] if vcpu >= 0 else getattr(op, "vm", -1), vcpu))
        try:
            result = self.OPERATIONS[type(op)](self, op)
            self.settle(task)
        except Violation as violation:
            raise self.remember(violation) from None
        finally:
            self.tasks.end(frame)
        self.tasks.last = task
        return result

    def settle(self, task: Task) -> None:
        """What must hold whenever an operation has ended."""
        if self.config.side != "hypervisor":
            self.hold(c.ROBUST)
            self.mutexes.settle(c.ONE_LOCK)
            return
        in_userspace = task.vcpu >= 0 and self.runs.of_vcpu[task.vcpu].told[0] and type(task.op) is ExtGuestRequest
        self.mutexes.settle(c.NO_LOCK_IN_USERSPACE if in_userspace else c.LOCK_FREE_AFTER)
        self.rmp.settle()
        held = self.held
        for clause in (c.LOCK_FREE_AFTER, c.ROBUST):
            held[clause] = held.get(clause, 0) + 1
        if self.contents.dirty:
            self.contents.settle()

    def digest(self) -> Hashable:
        """As everywhere; simulators of the guest's side are there only where there is one."""
        return tuple(getattr(self, name).digest() for name in self._remembering if hasattr(self, name))

    def can_interrupt(self, op: Any) -> bool:
        """In the middle of an operation the world may change, and another vCPU may exit while no lock is held."""
        if type(op) in (CloseFd, RemoveSlot, Wait):
            return not _is_entangled(op)
        if not self.mutexes.are_free:
            return False
        return type(op) in _COMPANY and all(self.can_run_beside(task.op, op) for task in self.tasks.running.values())

    def can_run_beside(self, left: Any, right: Any) -> bool:
        """Two vCPUs, or a vCPU and an ioctl, that do not write what the other one has the guest's own hands in."""
        vcpus = (getattr(left, "vcpu", -1), getattr(right, "vcpu", -2))
        return vcpus[0] != vcpus[1] and not any(_is_entangled(op) for op in (left, right))

    def view(self) -> View:
        """What can be observed from outside."""
        return view(self)


def _is_entangled(op: Any) -> bool:
    """Whether an operation touches pages that a guest fills itself in the same step: request pages and GHCBs."""
    return (
        getattr(op, "page", "P")[0] == "R"
        or getattr(op, "ghcb", "own") != "own"
        or getattr(op, "resp", "P")[0] in "RGD"
        or getattr(op, "data", "D")[0] in "GPR"
    )


def started_machine(suite: Suite, count: int) -> World:
    """A machine on which the shipped hypervisor runs an SNP VM that fetches certificates."""
    from conformance.candidates.builtin.snp_guest_request.upstream import Upstream

    machine = World(Config(certs=True, count=count), PROFILES["upstream"], suite)
    machine.start(Upstream)
    return machine


def fast(config: Config, profile: Profile) -> World:
    """The same world with the stand-in cipher."""
    return World(config, profile, STAND_IN)
