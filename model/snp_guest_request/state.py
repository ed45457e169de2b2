"""What either kind remembers between operations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from conformance.model.snp_guest_request.addresses import WATCHED
from conformance.model.snp_guest_request.operations import CPU_OF, Config
from conformance.specs.snp_guest_request.constants import SNP
from conformance.specs.snp_guest_request.profiles import Profile

VMS = 2
VCPUS = 3

Label = object
"""What a page holds: "start" when untouched, "zero" when its first 24 bytes were zeroed, "user" for userspace's
table, ("rsp", guest, vmpck, seqno), or (name of a blob, page of it, bytes of it)."""

START: Label = "start"


class Blob(NamedTuple):
    """Certificates that are installed somewhere."""

    name: str
    length: int


class Vm(NamedTuple):
    """What the world and the hypervisor know of a VM."""

    kind: int = 0
    life: str = "absent"
    """absent, created, init, launched, running, dropped, stuck (decommission failed), moved, mirror.

    A VM that is stuck still has the context in firmware, where it had one; whether it is used any more is left open.
    """
    gstate: str = "none"
    """Firmware's view of the guest: none, launch, running, or gone when firmware dropped it by itself."""
    counts: tuple[int, ...] = ()
    """Firmware's message counters by VMPCK."""
    guest: int = 0
    """Which guest's keys: its own number, or the source's after a move."""
    fd: str = "none"
    """open, closed, foreign."""
    certs: bool = False
    instance: Blob | None = None
    bugged: bool = False
    last: Label = "zero"
    """What a response buffer of the VM may hold: its latest response."""
    pages: tuple[Label, ...] = (START,) * len(WATCHED)
    moved: tuple[tuple[str, int], ...] = ()
    """(page, RMP state) of guest pages that are not in their resting state."""
    removed: frozenset[str] = frozenset()
    """Pages whose memslot is gone."""

    @property
    def has_context(self) -> bool:
        """Whether there is a guest context that a command could use."""
        return self.life in ("launched", "running") or (self.life == "stuck" and self.gstate != "none")


class Vcpu(NamedTuple):
    """A vCPU, the registration of its GHCB, and its certificate exit if one is pending."""

    created: bool = False
    registered: str = ""
    """Which page the guest registered as its GHCB, in the words of GuestRequest.ghcb; "" before it did."""
    pending: Any = None
    """The ExtGuestRequest that waits for userspace."""


class Guest(NamedTuple):
    """Kind G: what the guest's side has come to."""

    opened: bool = False
    vmpck: int = 0
    counts: tuple[int, ...] = (0, 0, 0, 0)
    """Firmware's counters by VMPCK: the stored sequence numbers too, but for `ahead`, until a key is wiped."""
    ahead: tuple[int, ...] = (0, 0, 0, 0)
    """Exchanges that the driver counted and firmware did not, by VMPCK."""
    wiped: tuple[bool, ...] = (False,) * 4
    answered: bool = False
    """There is an older response that a host could replay."""


@dataclass(frozen=True, slots=True)
class State:
    """All that either kind remembers; one of the two halves never changes."""

    vms: tuple[Vm, ...] = (Vm(), Vm())
    vcpus: tuple[Vcpu, ...] = (Vcpu(),) * VCPUS
    dead: bool = False
    """The secure processor timed out."""
    host_certs: Blob | None = None
    throttle: bool = False
    guest: Guest | None = None
    certs: str = ""
    """`Profile.certs`, which decides which entry points exist."""
    parses: bool = False
    """There is neither VM nor guest: certificate tables are parsed, and nothing else happens."""
    loop: bool = False
    """Kind G: a hypervisor stands between."""


def initial(config: Config, profile: Profile) -> State:
    """The state of that world, before the first step."""
    if config.side == "guest":
        counts = guest_counts(config)
        return State(guest=Guest(config.open, 0, counts), loop=config.host != "direct")
    if config.side == "verifier":
        return State(certs=profile.certs, parses=True)
    vms, vcpus = [Vm(), Vm()], [Vcpu()] * VCPUS
    if config.started:
        certs = config.certs and profile.certs == "userspace"
        vms[0] = running(0, SNP, certs)._replace(counts=(config.count, 0, 0, 0))
        vcpus[: config.vcpus] = [Vcpu(True, "own")] * config.vcpus
    if config.second:
        vms[1] = running(1, config.second, False)
        vcpus[2] = Vcpu(True, "own" if config.second == SNP else "")
    return State(tuple(vms), tuple(vcpus), throttle=config.throttle, certs=profile.certs)


def guest_counts(config: Config) -> tuple[int, ...]:
    """Kind G: what firmware has counted at the start; behind no hypervisor, every key was used already."""
    return (config.count, 2, 4, 6) if config.host == "direct" else (config.count, 0, 0, 0)


def running(vm: int, kind: int, certs: bool) -> Vm:
    """A VM that runs with a fresh guest."""
    if kind != SNP:
        return Vm(kind, "running", guest=vm)
    return Vm(kind, "running", "running", (0, 0, 0, 0), vm, "open", certs)


def with_vm(state: State, number: int, **changes: Any) -> State:
    """The state after these fields of a VM changed."""
    vm = state.vms[number]._replace(**changes)
    vms = (vm, state.vms[1]) if number == 0 else (state.vms[0], vm)
    return replace(state, vms=vms)


def registered_page(number: int, vcpu: Vcpu) -> str | None:
    """Name of the page that is the vCPU's GHCB."""
    return ghcb_page(number, vcpu.registered)


def ghcb_page(number: int, ghcb: str) -> str | None:
    """Name of the page that a vCPU exits through, from the word for it."""
    own = CPU_OF[number]
    return {"own": f"G{own}", "sibling": f"G{1 - own}", "spare": "spare"}.get(ghcb)


def with_vcpu(state: State, number: int, **changes: Any) -> State:
    """The state after these fields of a vCPU changed."""
    vcpus = list(state.vcpus)
    vcpus[number] = vcpus[number]._replace(**changes)
    return replace(state, vcpus=tuple(vcpus))
