"""Kind H: what performs each operation on a hypervisor's handler, and what is judged when it ends."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from conformance.environment.snp_guest_request.firmware import request_page
from conformance.environment.snp_guest_request.host import UNTOUCHED, WORD, Act, Cpu, Host
from conformance.environment.snp_guest_request.memory import (
    HOST,
    USER_BASE,
    USER_TABLE,
    Page,
    blob_bytes,
    blobs_in,
    classify,
)
from conformance.model.snp_guest_request.addresses import GPA, address
from conformance.model.snp_guest_request.messages import MESSAGES
from conformance.model.snp_guest_request.operations import (
    CPU_OF,
    VM_OF,
    Boot,
    CloseFd,
    Continue,
    Decommission,
    EnableReqCerts,
    ExtGuestRequest,
    GetInstanceCerts,
    GuestRequest,
    HostGetExtConfig,
    HostSetExtConfig,
    LaunchFinish,
    LaunchStart,
    RegisterGhcb,
    RemoveSlot,
    SetInstanceCerts,
    SevInit,
    UnknownExit,
    VcpuCreate,
    VmCreate,
    VmDestroy,
    Wait,
)
from conformance.model.snp_guest_request.state import Blob
from conformance.model.snp_guest_request.view import View
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import (
    EXIT,
    EXT_GUEST_REQUEST,
    FW_BLOB_MAX_SIZE,
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
    GUEST_VALID,
    HYPERVISOR,
    MALFORMED,
    PAGE_SIZE,
    RECLAIM,
    REPORT_REQ,
    RESUME,
    SNP,
    TOO_SMALL_INFO2,
)
from conformance.verdict import Crash, Violation

UNKNOWN_EXIT = 0x8000_00FF
RAX_OF_BASIC, RBX_OF_BASIC, RCX, RDX = 0x5A5A_0001, 0x5A5A_0002, 0x5A5A_0003, 0x5A5A_0004
POLICY = 1 << 17 | 1 << 16
INVALID_POLICY = 1 << 20 | 1 << 16
"""SMT is allowed; without bit 17, whatever else there is, a policy is invalid."""
MOVED = 2
"""Owner of what a VM had before it was moved: the source or the destination has it."""
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
def ghcb_page(code: int, info1: int, info2: int, rax: int, rbx: int, missing: str, usage: int) -> bytes:
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


class Operations(Host):
    """Performs operations and judges their end."""

    # -- VMGEXIT

    def request(self, op: GuestRequest | ExtGuestRequest) -> object:
        """Compose the message, fill the GHCB, and exit."""
        vcpu = op.vcpu
        vm, cpu = VM_OF[vcpu], CPU_OF[vcpu]
        pages = self.guests[vm]
        req, resp = address(op.req, cpu), address(op.resp, cpu)
        act = self.act
        page = pages.get(req >> 12)
        if op.req == "R":
            page = page or self.removed.get(self._pfn(vm, req))
            assert page is not None
            context = self.contexts[vm]
            known = context.context if context is not None else None
            guest, count = (known.guest, known.counts[cpu]) if known is not None else (vm, 0)
            page.data[:] = request_page(self.suite, op.message, guest, cpu, count)
        act.misaligned = req % PAGE_SIZE != 0
        if page is not None:
            act.instants.append(bytes(page.data if page.shadow is None else page.shadow))
        if type(op) is ExtGuestRequest:
            code, rax, rbx = EXT_GUEST_REQUEST, address(op.data, cpu), op.npages
        else:
            code, rax, rbx = GUEST_REQUEST, RAX_OF_BASIC, RBX_OF_BASIC
        return self._exit(op, code, req, resp, rax, rbx)

    def _pfn(self, vm: int, gpa: int) -> int:
        return (vm + 1) << 16 | gpa >> 12

    def unknown_exit(self, op: UnknownExit) -> object:
        """Exit with a code that nobody defined."""
        return self._exit(op, UNKNOWN_EXIT, GPA["R0"], GPA["P0"], RAX_OF_BASIC, RBX_OF_BASIC)

    def _exit(self, op: Any, code: int, info1: int, info2: int, rax: int, rbx: int) -> object:
        vcpu = op.vcpu
        vm, index = VM_OF[vcpu], CPU_OF[vcpu]
        gpa = GPA[{"own": f"G{index}", "sibling": f"G{1 - index}", "spare": "spare"}[getattr(op, "ghcb", "own")]]
        page = self.guests[vm].get(gpa >> 12) or self.removed[self._pfn(vm, gpa)]
        page.data[:] = ghcb_page(code, info1, info2, rax, rbx, op.missing, op.usage)
        cpu = self.cpus[vcpu]
        supplied = {GHCB_RAX: rax, GHCB_RBX: rbx, GHCB_RCX: RCX, GHCB_RDX: RDX}
        cpu.supplied = {
            at: v ^ _STALE if letter in op.missing else v
            for (at, letter), v in zip(_REGISTERS.items(), supplied.values(), strict=True)
        }
        cpu.race = {at: page.data[at] ^ bits for at, bits in _RACES.get(getattr(op, "race", ""), ())}
        cpu.raced = set()
        cpu.missing = op.missing
        cpu.overlaid = GPA["G0"] <= address_of_response(op, vcpu) <= GPA["G1"] or getattr(op, "data", "") == "G"
        for sibling, other in enumerate(self.cpus):
            if VM_OF[sibling] == vm and address_of_response(op, vcpu) == GPA[f"G{CPU_OF[sibling]}"]:
                other.overlaid = True
        return self._returned(vcpu, page, self.enter_int(self.driver.vmgexit, vcpu, gpa))

    def continue_(self, op: Continue) -> object:
        """Userspace answers, and the vCPU runs again."""
        cpu = self.cpus[op.vcpu]
        vm = VM_OF[op.vcpu]
        act = self.act
        act.instants = list(cpu.instants)
        cpu.run[2], cpu.run[3], cpu.read_ret = op.npages, op.ret, 0
        page = self.guests[vm].get(GPA[f"G{CPU_OF[op.vcpu]}"] >> 12)
        assert page is not None
        for at, bits in _RACES.get(op.race, ()):
            page.data[at] ^= bits
            cpu.raced.add(at)
        data = self._mapped(vm, cpu.supplied[GHCB_RAX], write=True)
        if op.ret == 0 and op.npages and data is not None and data.shadow is None:
            self.touch(data)
            data.data[:] = USER_TABLE
        return self._returned(op.vcpu, page, self.enter_int(self.driver.vcpu_continue, op.vcpu))

    def _returned(self, vcpu: int, page: Page, ret: int) -> object:
        """What KVM_RUN's caller and the guest see: an errno, an exit, or the GHCB after resumption."""
        cpu, act = self.cpus[vcpu], self.act
        if ret == EXIT:
            if not isinstance(act.op, ExtGuestRequest) or MESSAGES[act.op.message].type != REPORT_REQ:
                raise Violation(c.NO_OTHER_EXIT, "an exit to userspace for a request that asks for no report")
            if VM_OF[vcpu] not in self.fetching:
                raise Violation(c.ENABLE_CERTS, "an exit for certificates, which nobody enabled for this VM")
            cpu.instants = list(act.instants)
            return (EXIT, *cpu.run)
        if ret > RESUME:
            raise Crash(f"vmgexit returned {ret}, which is neither RESUME, EXIT nor an errno", "type")
        self.enter_int(self.driver.ghcb_leave, vcpu)
        self.require(c.REFERENCES_DROPPED, cpu.mapped is None, f"the GHCB of vCPU {vcpu} stays mapped")
        if ret < 0:
            return ret
        data = page.data
        info1 = int.from_bytes(data[GHCB_SW_EXITINFO1 : GHCB_SW_EXITINFO1 + 8], "little")
        info2 = int.from_bytes(data[GHCB_SW_EXITINFO2 : GHCB_SW_EXITINFO2 + 8], "little")
        if not act.ghcb_written:
            return (RESUME, info1, info2, None)
        if info1 & WORD >> 32 == MALFORMED:
            info1 = MALFORMED
        if info1 not in (0, MALFORMED):
            raise Violation(c.NO_ACTION, f"SW_EXITINFO1 is {info1:#x}")
        if info1 == 0 and info2 and act.cleanup_failed:
            raise Violation(c.CLEANUP_IS_NO_STATUS, f"SW_EXITINFO2 {info2:#x} after the response page was not had back")
        if info1 == 0 and info2 >> 32 and info2 & 0xFFFFFFFF and self.profile.errors == "ghcb":
            raise Violation(c.HALVES, f"SW_EXITINFO2 is {info2:#018x}: both halves are set")
        rbx = int.from_bytes(data[GHCB_RBX : GHCB_RBX + 8], "little")
        small = info1 == 0 and info2 == TOO_SMALL_INFO2
        if cpu.overlaid:
            return (RESUME, info1, info2, rbx if small else None)
        for offset, supplied in cpu.supplied.items():
            if small and offset == GHCB_RBX:
                continue
            value = int.from_bytes(data[offset : offset + 8], "little")
            raced = any(offset <= at < offset + 8 for at in cpu.raced)
            absent = _REGISTERS[offset] in cpu.missing
            if value != supplied and not (value == 0 and absent) and not raced:
                raise Violation(c.REGISTERS_KEPT, f"GHCB field {offset:#x} came back as {value:#x}, was {supplied:#x}")
        self.held[c.REGISTERS_KEPT] = self.held.get(c.REGISTERS_KEPT, 0) + 1
        return (RESUME, info1, info2, rbx if small else None)

    # -- lifecycle

    def boot(self, op: Boot) -> int:
        """Every entry point from nothing to running; the first result that is not 0, or 0."""
        driver, vm = self.driver, op.vm
        self.populate(vm)
        fd = self.fd_of[vm] = self._opened()
        vcpu = 0 if vm == 0 else 2
        steps: list[tuple[Any, ...]] = [(driver.vm_create, vm, op.kind), (driver.sev_init, vm)]
        if op.kind == SNP:
            steps += [(driver.launch_start, vm, fd, POLICY), (driver.launch_finish, vm)]
            if op.certs and self.profile.certs == "userspace":
                steps.append((driver.enable_req_certs, vm))
        steps.append((driver.vcpu_create, vcpu, vm))
        if op.kind == SNP:
            steps.append((driver.ghcb_register, vcpu, GPA["G0"]))
        for function, *arguments in steps:
            result = self.enter_int(function, *arguments)
            if result:
                return result
        self.ghcbs.add((vm, "G0"))
        if op.certs:
            self.fetching.add(vm)
        return 0

    def vm_create(self, op: VmCreate) -> int:
        """An empty VM with memory."""
        self.populate(op.vm)
        return self.enter_int(self.driver.vm_create, op.vm, op.kind)

    def sev_init(self, op: SevInit) -> int:
        """KVM_SEV_INIT2."""
        result = self.enter_int(self.driver.sev_init, op.vm)
        if result < 0:
            self._nothing_left(c.INIT_FAILURE)
        return result

    def launch_start(self, op: LaunchStart) -> int:
        """KVM_SEV_SNP_LAUNCH_START."""
        number = self._opened() if op.fd == "open" else {"closed": 30, "foreign": 9}[op.fd]
        before = self.contexts[op.vm]
        has = before is not None and before.context is not None and not before.freed
        result = self.enter_int(self.driver.launch_start, op.vm, number, POLICY if op.valid else INVALID_POLICY)
        if result < 0:
            self._nothing_left(c.ONE_CONTEXT if has or not op.valid else c.CONTEXT_FAILURE)
        else:
            self.fd_of[op.vm] = number
        return result

    def _opened(self) -> int:
        """A file descriptor of the secure processor, of a number that was never used."""
        fd = self.next_fd
        self.next_fd += 1
        self.fds[fd] = "sev"
        return fd

    def _nothing_left(self, clause: Any) -> None:
        """After a failure everything taken was given back, but for what firmware would not give back."""
        for taken in self.act.allocated:
            if isinstance(taken, int):
                stuck = any(p is not None and p.kept for p in self.contexts)
                if taken in self.asids and not stuck:
                    raise Violation(clause, f"ASID {taken} is lost after the failure")
            elif not taken.freed and not (isinstance(taken, Page) and (taken.stuck or taken.leaked)):
                what = f"a page in RMP state {taken.state}" if isinstance(taken, Page) else f"{taken.size} bytes"
                raise Violation(clause, f"{what} at {taken.base:#x} are lost after the failure")
        self.hold(clause)

    def launch_finish(self, op: LaunchFinish) -> int:
        """KVM_SEV_SNP_LAUNCH_FINISH."""
        return self.enter_int(self.driver.launch_finish, op.vm)

    def enable_req_certs(self, op: EnableReqCerts) -> tuple[int, int]:
        """Enabling, and the attribute query."""
        result = self.enter_int(self.driver.enable_req_certs, op.vm)
        if result == 0:
            self.fetching.add(op.vm)
        return result, self.enter_int(self.driver.has_req_certs)

    def vcpu_create(self, op: VcpuCreate) -> int:
        """A vCPU."""
        return self.enter_int(self.driver.vcpu_create, op.vcpu, VM_OF[op.vcpu])

    def register_ghcb(self, op: RegisterGhcb) -> int:
        """The guest registers its GHCB."""
        self.ghcbs.add((VM_OF[op.vcpu], f"G{CPU_OF[op.vcpu]}"))
        return self.enter_int(self.driver.ghcb_register, op.vcpu, GPA[f"G{CPU_OF[op.vcpu]}"])

    def decommission(self, op: Decommission) -> int:
        """Give the context up."""
        result = self.enter_int(self.driver.decommission, op.vm)
        page = self.contexts[op.vm]
        if result == 0 and page is not None and not (page.freed or page.stuck or page.leaked):
            raise Violation(c.DECOMMISSION, f"the context page is kept in RMP state {page.state}")
        if result == 0:
            for buffer in self.buffers.values():
                if buffer.owner == op.vm and not buffer.freed:
                    raise Violation(c.DECOMMISSION, f"{buffer.size} bytes of certificate storage are kept")
        return result

    def vm_destroy(self, op: VmDestroy) -> int:
        """The VM goes, and nothing of it stays but what is leaked on purpose."""
        vm = op.vm
        for vcpu, owner in enumerate(VM_OF):
            if owner == vm and self.cpus[vcpu].mapped is not None:
                self.enter_int(self.driver.ghcb_leave, vcpu)
        result = self.enter_int(self.driver.vm_destroy, vm)
        for guest in (*self.guests[vm].values(), *self.removed.values()):
            if guest.vm == vm and guest.refs and not guest.leaked:
                raise Violation(c.REFERENCES_DROPPED, f"{guest.refs} references to page {guest.name} outlive their VM")
        self.hold(c.REFERENCES_DROPPED)
        for page in self.pages.values():
            if page.owner == vm and not (page.freed or page.stuck or page.leaked):
                raise Violation(
                    self._leak_clause(page), f"page {page.base:#x} in RMP state {page.state} outlives its VM"
                )
        for buffer in self.buffers.values():
            if buffer.owner == vm and not buffer.freed:
                raise Violation(c.DECOMMISSION, f"{buffer.size} bytes at {buffer.base:#x} outlive their VM")
        context = self.contexts[vm]
        kept = context is not None and context.kept
        if kept and context is not None and context.context is not None:
            self.asids.pop(context.context.asid, None)
        for asid, owner in self.asids.items():
            if owner == vm and not kept:
                raise Violation(c.DESTROY_ORDER, f"ASID {asid} outlives its VM")
        self._forget(vm)
        return result

    def _forget(self, vm: int) -> None:
        """The VM's number is free again."""
        other = 1 - vm  # of what was moved, the VM that is still there has the rest
        heirs = {vm: HOST, MOVED: other}
        for thing in (*self.pages.values(), *self.buffers.values()):
            thing.owner = heirs.get(thing.owner, thing.owner)
        self.asids = {asid: heirs.get(owner, owner) for asid, owner in self.asids.items() if owner != vm}
        for name in [name for name, owner in self.lock_vm.items() if owner == vm]:
            del self.locks[name], self.lock_vm[name]
            self.lock_users.pop(name, None)
        self.taken = {page: None for page in self.taken if page.vm != vm}
        self.removed = {pfn: page for pfn, page in self.removed.items() if page.vm != vm}
        self.guests[vm], self.watched[vm], self.contexts[vm] = {}, [], None
        self.bugged[vm], self.labels[vm] = False, UNTOUCHED
        self.rates.pop(vm, None)
        self.granted.pop(vm, None)
        self.fetching.discard(vm)
        self.joined.discard(vm)
        self.ghcbs = {ghcb for ghcb in self.ghcbs if ghcb[0] != vm}
        for vcpu, owner in enumerate(VM_OF):
            if owner == vm:
                self.cpus[vcpu] = Cpu()

    def move_from(self, _op: Any) -> int:
        """VM 1 is created, takes VM 0 over, and gets a vCPU; or goes again when that is refused."""
        return self._joined(self.driver.vm_move_from, moves=True)

    def mirror_from(self, _op: Any) -> int:
        """As for a move, but VM 0 keeps what it has."""
        return self._joined(self.driver.vm_mirror_from, moves=False)

    def _joined(self, function: Any, *, moves: bool) -> int:
        self.populate(1)
        self.act.vm = 1
        result = self.enter_int(self.driver.vm_create, 1, SNP) or self.enter_int(function, 1, 0)
        if result:
            self.enter_int(self.driver.vm_destroy, 1)
            self._forget(1)
            return result
        if moves:
            self.contexts = [None, self.contexts[0]]
            self.fd_of[1] = self.fd_of[0]
            self.fetching |= {1} if 0 in self.fetching else set()
            for thing in (*self.pages.values(), *self.buffers.values()):
                if thing.owner == 0:
                    thing.owner, thing.vms = MOVED, {1} if thing.vms else set()
            self.asids = {asid: MOVED if owner == 0 else owner for asid, owner in self.asids.items()}
            for name in [name for name, owner in self.lock_vm.items() if owner == 0]:
                self.loose_locks.add(name)
                del self.lock_vm[name]
                self.lock_users.pop(name, None)
        self.joined.add(0 if moves else 1)
        self.enter_int(self.driver.vcpu_create, 2, 1)
        self.enter_int(self.driver.ghcb_register, 2, GPA["G0"])
        self.ghcbs.add((1, "G0"))
        return 0

    def snp_shutdown(self, _op: Any) -> int:
        """SNP is shut down on the host."""
        return self.enter_int(self.driver.snp_shutdown)

    # -- certificates in the kernel

    def set_instance_certs(self, op: SetInstanceCerts) -> int:
        """KVM_SEV_SNP_SET_CERTS."""
        self._lend(op.blob, op.length)
        result = self.enter_int(self.driver.set_instance_certs, op.vm, USER_BASE, op.length)
        if result == 0:
            self.current[op.vm] = (op.blob, op.length)
        return result

    def _lend(self, blob: str, length: int) -> None:
        """Put a blob in user memory; what follows it to the end of its page is the user's own business."""
        if 0 < length <= 0x8000:
            if length <= FW_BLOB_MAX_SIZE:
                self.installed[blob, length] = None
            size = -(-length // PAGE_SIZE) * PAGE_SIZE
            self.user = blob_bytes(blob, length).ljust(size, b"\x55")

    def get_instance_certs(self, op: GetInstanceCerts) -> object:
        """KVM_SEV_SNP_GET_CERTS."""
        self.user_out = bytearray(op.length)
        result = self.enter(self.driver.get_instance_certs, op.vm, USER_BASE, op.length)
        return self._taken_out(result, op.length, self.current.get(op.vm))

    def host_set_ext_config(self, op: HostSetExtConfig) -> int:
        """SNP_SET_EXT_CONFIG."""
        self._lend(op.blob or "H", op.length)
        user = USER_BASE if op.blob else 0
        length = op.length if op.blob else 0
        tcb = op.tcb << 56 | 0x16_0000_0000_0004 if op.tcb else 0
        result = self.enter_int(self.driver.host_set_ext_config, tcb, user, length, int(op.writable))
        if result == 0 and op.blob:
            self.current[HOST] = (op.blob, op.length)
        if result == 0:
            self.certs_tcb = {op.blob: tcb} if op.tcb and op.blob else {}
        return result

    def host_get_ext_config(self, op: HostGetExtConfig) -> object:
        """SNP_GET_EXT_CONFIG."""
        self.user_out = bytearray(op.length)
        result = self.enter(self.driver.host_get_ext_config, USER_BASE, op.length)
        return self._taken_out(result, op.length, self.current.get(HOST))

    def _taken_out(self, result: Any, length: int, current: tuple[str, int] | None) -> object:
        """Result, pages of the length that was stored, and which blob came out."""
        if type(result) is not tuple or [type(value) for value in result] != [int, int]:
            raise Crash(f"returned {result!r}, expected (result, length)", "type")
        ret, stored = result
        pages = -(-stored // PAGE_SIZE)
        if ret:
            return (ret, pages if ret != -2 and stored else 0, None)
        if not stored:
            return (0, 0, None)
        out = bytes(self.user_out[: min(stored, length)])
        newest = [current] if current is not None else []
        for name, size in (*newest, *sorted(self.installed, key=lambda blob: -blob[1])):
            if size <= stored and -(-size // PAGE_SIZE) == pages and out.startswith(blob_bytes(name, size)):
                if any(out[size:]):
                    raise Violation(
                        c.NO_STALE_BLOB, f"{stored - size} bytes after the {size} of blob {name} are not zero"
                    )
                return (0, pages, Blob(name, size))
        if len(blobs_in(out)) > 1:
            raise Violation(c.BLOB_ATOMIC, f"a mixture of blobs {', '.join(sorted(blobs_in(out)))} comes out")
        return (0, pages, None)

    # -- the world

    def close_fd(self, op: CloseFd) -> int:
        """The VM's file of the secure processor goes."""
        self.fds[self.fd_of[op.vm]] = "other" if op.foreign else "closed"
        return 0

    def remove_slot(self, op: RemoveSlot) -> int:
        """A page of guest memory goes; its frame stays while somebody holds a reference."""
        page = self.guests[op.vm].pop(GPA[op.page] >> 12, None)
        if page is not None:
            self.removed[page.pfn] = page
        return 0

    def wait(self, op: Wait) -> int:
        """Time passes."""
        self.seconds += op.seconds
        return 0

    # -- the end of an operation

    def settle(self, act: Act) -> None:
        """What must hold whenever an operation has ended."""
        held = self.held
        if act.held:
            pending = act.vcpu >= 0 and self.cpus[act.vcpu].run[0] and type(act.op) is ExtGuestRequest
            clause = c.NO_LOCK_IN_USERSPACE if pending else c.LOCK_FREE_AFTER
            raise Violation(clause, f"lock {act.held[0]} is still held")
        for page in self.taken:
            if page.state not in (HYPERVISOR, GUEST_VALID) and not page.leaked and page.in_flight is self.frame:
                failed = c.MAKE_SHARED_FAILED if page.state == RECLAIM else c.RECLAIM_FAILED
                clause = failed if page.stuck else c.RESPONSE_PAGE_BACK
                raise Violation(clause, f"page {page.name} is left in RMP state {page.state}, and not leaked")
        for clause in (c.LOCK_FREE_AFTER, c.ROBUST):
            held[clause] = held.get(clause, 0) + 1
        if self.dirty:
            self._classify()

    def _classify(self) -> None:
        names = set()
        for page in self.dirty:
            page.dirty = False
            if page.before == page.data:
                continue
            if page in self.watched[page.vm]:
                newest = [self.current[who] for who in (page.vm, HOST) if who in self.current]
                page.label = classify(page, self.responses, self.installed, newest)
                if page.label == "corrupt" and self.profile.certs == "kernel" and len(blobs_in(bytes(page.data))) > 1:
                    self.dirty = []
                    raise Violation(c.BLOB_ATOMIC, f"page {page.name} holds a mixture of blobs")
            if type(page.label) is tuple and page.label[0] != "rsp" and page.before != page.data:
                names.add(page.label[0])
        self.dirty = []
        if len(names) > 1:
            raise Violation(c.BLOB_ATOMIC, f"one request is given pages of blobs {' and '.join(sorted(names))}")
        self.labels = [tuple([p.label for p in pages]) or UNTOUCHED for pages in self.watched]

    def host_view(self) -> View:
        """What can be observed of the machine."""
        states: list[str] = []
        counts: list[tuple[int, ...]] = []
        for page in self.contexts:
            context = None if page is None or page.freed or page.stuck else page.context
            if context is None or (page is not None and page.decommissioned):
                states.append("none")
                counts.append(())
            else:
                states.append(context.state)
                counts.append(() if context.state == "gone" else tuple(context.counts))
        if self.taken:
            moved = [
                tuple(sorted((p.name, p.state) for p in self.taken if p.vm == vm and p.state != p_rest(p)))
                for vm in (0, 1)
            ]
        else:
            moved = _NOTHING
        return View(
            (states[0], states[1]),
            (counts[0], counts[1]),
            (moved[0], moved[1]),
            (self.labels[0], self.labels[1]),
            (self.bugged[0], self.bugged[1]),
            self.dead,
        )


_NOTHING: list[tuple[tuple[str, int], ...]] = [(), ()]


def p_rest(page: Page) -> int:
    """RMP state of a guest page that nobody has touched."""
    return GUEST_VALID if page.name == "private" else HYPERVISOR


def address_of_response(op: Any, vcpu: int) -> int:
    """Where the response of a request goes, -1 for other operations."""
    name = getattr(op, "resp", None)
    return -1 if name is None else address(name, CPU_OF[vcpu])
