"""KVM's side, laid out as arch/x86/kvm/svm/sev.c is: one method per function, under the kernel's name.

The functions of drivers/crypto/ccp/sev-dev.c that KVM calls stand at the end. Commands, their mutex and the dead
processor are the environment's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from conformance.specs.snp_guest_request.constants import (
    BUSY_INFO2,
    C_BIT,
    EAGAIN,
    EBUSY,
    EINVAL,
    EIO,
    ENOMEM,
    ENOSPC,
    ENOTTY,
    EXIT,
    EXIT_SNP_REQ_CERTS,
    EXT_GUEST_REQUEST,
    GENERIC_INFO2,
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
    INVALID_EVENT,
    INVALID_INPUT,
    INVALID_USAGE,
    MALFORMED,
    MISSING_INPUT,
    MSG_TYPE,
    NO_FD,
    PAGE_SIZE,
    REPORT_REQ,
    RESUME,
    RUN_NPAGES,
    RUN_RET,
    SEV,
    SEV_ES,
    SNP,
    TOO_SMALL_INFO2,
)
from conformance.specs.snp_guest_request.port import Port

POLICY_RSVD_MBO = 17
POLICY_SINGLE_SOCKET = 20
POLICY_BITS = 26
"""Policy bits from here up are reserved."""
REGISTERS = (GHCB_RAX, GHCB_RBX, GHCB_RCX, GHCB_RDX)
EMPTY_TABLE_SIZE = 24


@dataclass(slots=True)
class SevInfo:
    """struct kvm_sev_info, with what KVM itself keeps of the VM."""

    vm: int
    vm_type: int
    created_vcpus: int = 0
    active: bool = False
    snp_active: bool = False
    """SVM_SEV_FEAT_SNP_ACTIVE in vmsa_features."""
    dead: bool = False
    asid: int = 0
    fd: int = NO_FD
    enc_context_owner: int | None = None
    """The VM whose context a mirror uses."""
    snp_context: int = 0
    guest_req_buf: int = 0
    guest_resp_buf: int = 0
    guest_req_mutex: str = ""
    certs_enabled: bool = False


@dataclass(slots=True)
class VcpuSvm:
    """struct vcpu_svm: the GHCB as it was when the guest left, and what shall happen when userspace comes back."""

    vm: int
    ghcb_registered_gpa: int | None = None
    mapped: bool = False
    valid_bitmap: int = 0
    regs: dict[int, int] = field(default_factory=dict)
    exit_code: int = 0
    exit_info_1: int = 0
    exit_info_2: int = 0
    complete_userspace_io: Callable[[int], int] | None = None


class Linux:
    """KVM as of the certificate exit: the guest's pages are copied to and from two pages of the VM's own."""

    profile = "upstream"
    capabilities = frozenset({"hypervisor", "userspace-certs", "move"})

    CLEARED: ClassVar[int] = EMPTY_TABLE_SIZE
    """Bytes of the data pages that make an empty table."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self.kvm: dict[int, SevInfo] = {}
        self.vcpus: dict[int, VcpuSvm] = {}

    # -- VMs and vCPUs

    def vm_create(self, vm: int, kind: int) -> int:
        """svm_vm_init: the type is noted, nothing is active."""
        self.kvm[vm] = SevInfo(vm, kind)
        return 0

    def sev_init(self, vm: int) -> int:
        """__sev_guest_init."""
        sev = self.kvm[vm]
        if sev.created_vcpus or sev.active or sev.vm_type not in (SEV, SEV_ES, SNP):
            return -EINVAL
        asid = self.port.alloc_asid()
        if asid <= 0:
            return asid or -EBUSY
        if sev.vm_type == SNP:
            ret = self.snp_guest_req_init(sev)
            if ret:
                self.port.free_asid(asid)
                return ret
        sev.asid = asid
        sev.active = True
        sev.snp_active = sev.vm_type == SNP
        return 0

    def snp_guest_req_init(self, sev: SevInfo) -> int:
        """Two pages and a mutex; the response page belongs to firmware for the VM's life."""
        req_page = self.port.alloc_page(1)
        if not req_page:
            return -ENOMEM
        sev.guest_resp_buf = self.port.alloc_fw_page()
        if not sev.guest_resp_buf:
            self.port.free_page(req_page)
            return -EIO
        sev.guest_req_buf = req_page
        sev.guest_req_mutex = f"guest_req_mutex of VM {sev.vm}"
        self.port.mutex_init(sev.guest_req_mutex)
        return 0

    def snp_guest_req_cleanup(self, sev: SevInfo) -> None:
        """Give both pages back."""
        if sev.guest_resp_buf:
            self.snp_free_firmware_page(sev.guest_resp_buf)
        if sev.guest_req_buf:
            self.port.free_page(sev.guest_req_buf)
        sev.guest_req_buf = 0
        sev.guest_resp_buf = 0

    def vcpu_create(self, vcpu: int, vm: int) -> int:
        """kvm_vm_ioctl_create_vcpu."""
        self.kvm[vm].created_vcpus += 1
        self.vcpus[vcpu] = VcpuSvm(vm)
        return 0

    def enable_req_certs(self, vm: int) -> int:
        """snp_enable_certs."""
        sev = self.kvm[vm]
        if sev.created_vcpus or not sev.snp_active:
            return -EINVAL
        sev.certs_enabled = True
        return 0

    def has_req_certs(self) -> int:
        """sev_dev_get_attr(KVM_X86_SEV_SNP_REQ_CERTS)."""
        return 1

    # -- launch

    def launch_start(self, vm: int, fd: int, policy: int) -> int:
        """snp_launch_start: inputs first, since 6.12; the file is kept once a command took it."""
        sev = self.kvm[vm]
        if not sev.snp_active:
            return -ENOTTY
        if sev.snp_context:
            return -EINVAL
        if policy >> POLICY_BITS or not policy >> POLICY_RSVD_MBO & 1 or policy >> POLICY_SINGLE_SOCKET & 1:
            return -EINVAL
        sev.snp_context = self.snp_context_create(fd)
        if not sev.snp_context:
            return -ENOTTY
        ret, _ = self.port.snp_launch_start(fd, psp_pa(sev.snp_context), policy, 0)
        if not ret:
            sev.fd = fd
            ret, _ = self.port.snp_activate(sev.fd, psp_pa(sev.snp_context), sev.asid, 0)
        if ret:
            self.snp_decommission_context(sev)
        return ret

    def snp_context_create(self, fd: int) -> int:
        """A context page, 0 whatever went wrong."""
        context = self.port.alloc_fw_page()
        if not context:
            return 0
        ret, _ = self.port.snp_gctx_create(fd, psp_pa(context), 0)
        if ret:
            self.snp_free_firmware_page(context)
            return 0
        return context

    def launch_finish(self, vm: int) -> int:
        """snp_launch_finish, through the VM's stored file."""
        sev = self.kvm[vm]
        if not sev.snp_active:
            return -ENOTTY
        if not sev.snp_context:
            return -EINVAL
        ret, _ = self.port.snp_launch_finish(sev.fd, psp_pa(sev.snp_context), 0)
        return ret

    # -- the end

    def decommission(self, vm: int) -> int:
        """Give the guest context up."""
        return self.snp_decommission_context(self.kvm[vm])

    def snp_decommission_context(self, sev: SevInfo) -> int:
        """Unbind the ASID and free the context page; both stay where they are when firmware refuses."""
        if not sev.snp_context:
            return 0
        ret, _ = self.port.snp_decommission(NO_FD, psp_pa(sev.snp_context), 0)
        if ret:
            return ret
        self.snp_free_firmware_page(sev.snp_context)
        sev.snp_context = 0
        return 0

    def vm_destroy(self, vm: int) -> int:
        """sev_vm_destroy: the two pages, the context, then the ASID, which is leaked with its context."""
        sev = self.kvm.pop(vm)
        for vcpu in [vcpu for vcpu, svm in self.vcpus.items() if svm.vm == vm]:
            del self.vcpus[vcpu]
        if not sev.active or sev.enc_context_owner is not None:
            return 0
        if sev.snp_active:
            self.snp_guest_req_cleanup(sev)
            if self.snp_decommission_context(sev):
                return 0
        self.port.free_asid(sev.asid)
        return 0

    def snp_shutdown(self) -> int:
        """__sev_snp_shutdown_locked: nothing of it is KVM's."""
        return 0

    # -- move and mirror

    def vm_move_from(self, dst: int, src: int) -> int:
        """sev_vm_move_enc_context_from; the SNP state would stay behind, so an SNP VM does not move."""
        to, source = self.kvm[dst], self.kvm[src]
        if to is source or to.vm_type != source.vm_type or to.active or not source.active:
            return -EINVAL
        if source.snp_active:
            return -EINVAL
        to.active, to.asid, to.enc_context_owner = True, source.asid, source.enc_context_owner
        source.active, source.asid, source.enc_context_owner = False, 0, None
        source.dead = True
        return 0

    def vm_mirror_from(self, dst: int, src: int) -> int:
        """sev_vm_copy_enc_context_from: ASID and file, no features, so a mirror is no SNP VM."""
        mirror, source = self.kvm[dst], self.kvm[src]
        if mirror is source or not source.active or source.enc_context_owner is not None:
            return -EINVAL
        if mirror.active or mirror.created_vcpus:
            return -EINVAL
        mirror.enc_context_owner = src
        mirror.active = True
        mirror.asid = source.asid
        mirror.fd = source.fd
        return 0

    # -- exits

    def ghcb_register(self, vcpu: int, gpa: int) -> int:
        """sev_handle_vmgexit_msr_protocol(GHCB_MSR_REG_GPA_REQ); others than SNP are terminated."""
        svm = self.vcpus[vcpu]
        if not self.kvm[svm.vm].snp_active:
            return -EINVAL
        svm.ghcb_registered_gpa = gpa // PAGE_SIZE * PAGE_SIZE
        return 0

    def vmgexit(self, vcpu: int, gpa: int) -> int:
        """sev_handle_vmgexit."""
        svm = self.vcpus[vcpu]
        if self.kvm[svm.vm].dead:
            return -EIO
        if not gpa:
            return RESUME
        if self.port.ghcb_map(vcpu, gpa):
            return RESUME
        svm.mapped = True
        self.sev_es_sync_from_ghcb(vcpu)
        if self.kvm[svm.vm].snp_active and svm.ghcb_registered_gpa != gpa:
            return -EINVAL
        if self.sev_es_validate_vmgexit(vcpu):
            return RESUME
        self.ghcb_set(vcpu, GHCB_SW_EXITINFO1, 0)
        self.ghcb_set(vcpu, GHCB_SW_EXITINFO2, 0)
        if svm.exit_code == GUEST_REQUEST:
            return self.snp_handle_guest_req(vcpu, svm.exit_info_1, svm.exit_info_2)
        return self.snp_handle_ext_guest_req(vcpu, svm.exit_info_1, svm.exit_info_2)

    def vcpu_continue(self, vcpu: int) -> int:
        """kvm_arch_vcpu_ioctl_run: what was left open is completed."""
        svm = self.vcpus[vcpu]
        complete, svm.complete_userspace_io = svm.complete_userspace_io, None
        if self.kvm[svm.vm].dead:
            return -EIO
        return complete(vcpu) if complete else RESUME

    def ghcb_leave(self, vcpu: int) -> int:
        """sev_es_unmap_ghcb."""
        svm = self.vcpus[vcpu]
        if svm.mapped:
            self.sev_es_sync_to_ghcb(vcpu)
            self.port.ghcb_unmap(vcpu)
            svm.mapped = False
        return 0

    def sev_es_sync_from_ghcb(self, vcpu: int) -> None:
        """Take the guest's values once, and clear its valid bits: from here on they are the host's."""
        svm = self.vcpus[vcpu]
        svm.valid_bitmap = self.port.ghcb_read(vcpu, GHCB_VALID_BITMAP, 16)
        svm.regs = {
            register: self.port.ghcb_read(vcpu, register, 8) if self.is_valid(svm, register) else 0
            for register in REGISTERS
        }
        svm.exit_code = self.port.ghcb_read(vcpu, GHCB_SW_EXITCODE, 8)
        svm.exit_info_1 = self.port.ghcb_read(vcpu, GHCB_SW_EXITINFO1, 8)
        svm.exit_info_2 = self.port.ghcb_read(vcpu, GHCB_SW_EXITINFO2, 8)
        self.port.ghcb_write(vcpu, GHCB_VALID_BITMAP, 0)
        self.port.ghcb_write(vcpu, GHCB_VALID_BITMAP + 8, 0)

    def sev_es_sync_to_ghcb(self, vcpu: int) -> None:
        """Give the registers back, valid all of them."""
        for register, value in self.vcpus[vcpu].regs.items():
            self.ghcb_set(vcpu, register, value)

    def sev_es_validate_vmgexit(self, vcpu: int) -> int:
        """1 when the guest was told that its input is malformed."""
        svm = self.vcpus[vcpu]
        fields = (GHCB_SW_EXITCODE, GHCB_SW_EXITINFO1, GHCB_SW_EXITINFO2)
        if self.port.ghcb_read(vcpu, GHCB_USAGE, 4):
            reason = INVALID_USAGE
        elif not all(self.is_valid(svm, at) for at in fields):
            reason = MISSING_INPUT
        elif svm.exit_code not in (GUEST_REQUEST, EXT_GUEST_REQUEST):
            reason = INVALID_EVENT
        elif (
            not self.kvm[svm.vm].snp_active
            or svm.exit_info_1 % PAGE_SIZE
            or svm.exit_info_2 % PAGE_SIZE
            or svm.exit_info_1 == svm.exit_info_2
        ):
            reason = MISSING_INPUT
        else:
            return 0
        return self.malformed(vcpu, reason)

    def malformed(self, vcpu: int, reason: int) -> int:
        """svm_vmgexit_bad_input."""
        self.ghcb_set(vcpu, GHCB_SW_EXITINFO1, MALFORMED)
        self.ghcb_set(vcpu, GHCB_SW_EXITINFO2, reason)
        return RESUME

    def ghcb_set(self, vcpu: int, offset: int, value: int) -> None:
        """ghcb_set_*: the valid bit, then the field."""
        bit = offset // 8
        at = GHCB_VALID_BITMAP + bit // 64 * 8
        bits = self.port.ghcb_read(vcpu, at, 8)
        self.port.ghcb_write(vcpu, at, bits | 1 << bit % 64)
        self.port.ghcb_write(vcpu, offset, value)

    @staticmethod
    def is_valid(svm: VcpuSvm, offset: int) -> bool:
        """kvm_ghcb_*_is_valid."""
        return bool(svm.valid_bitmap >> offset // 8 & 1)

    # -- requests

    def snp_handle_guest_req(self, vcpu: int, req_gpa: int, resp_gpa: int) -> int:
        """Firmware's errors go to the guest, all others to userspace."""
        sev = self.kvm[self.vcpus[vcpu].vm]
        if not sev.snp_active:
            return -EINVAL
        self.port.mutex_lock(sev.guest_req_mutex)
        ret = self.forward(sev, vcpu, req_gpa, resp_gpa)
        self.port.mutex_unlock(sev.guest_req_mutex)
        return ret

    def forward(self, sev: SevInfo, vcpu: int, req_gpa: int, resp_gpa: int) -> int:
        """__snp_handle_guest_req: what is done under guest_req_mutex.

        Linux relies on no SNP guest running without a context; what asks for it here can.
        """
        if not sev.snp_context:
            return -EINVAL
        if self.fetch(sev, vcpu, req_gpa):
            return -EIO
        ret, fw_err = self.command(sev)
        if ret and not fw_err:
            return ret
        if self.port.write_guest(sev.vm, resp_gpa, sev.guest_resp_buf, PAGE_SIZE):
            return -EIO
        return self.tell(vcpu, fw_err)

    def fetch(self, sev: SevInfo, vcpu: int, req_gpa: int) -> int:
        """Copy the guest's message into the VM's page."""
        return self.port.read_guest(sev.vm, req_gpa, sev.guest_req_buf, PAGE_SIZE)

    def command(self, sev: SevInfo) -> tuple[int, int]:
        """SNP_GUEST_REQUEST through the VM's file; the status is 0 until firmware has written one."""
        request, response = psp_pa(sev.guest_req_buf), psp_pa(sev.guest_resp_buf)
        return self.port.snp_guest_request(sev.fd, psp_pa(sev.snp_context), request, response, 0)

    def tell(self, vcpu: int, info_2: int) -> int:
        """The guest's answer: firmware's status in the low half, or a condition of the hypervisor's in the high one."""
        self.ghcb_set(vcpu, GHCB_SW_EXITINFO2, info_2)
        return RESUME

    def snp_handle_ext_guest_req(self, vcpu: int, req_gpa: int, resp_gpa: int) -> int:
        """Only a report request has certificates; the type is read from the guest's page, and read again with it."""
        svm = self.vcpus[vcpu]
        sev = self.kvm[svm.vm]
        msg_type = self.read_msg_type(sev, vcpu, req_gpa)
        if msg_type < 0:
            return msg_type
        if msg_type == REPORT_REQ:
            if not (self.is_valid(svm, GHCB_RAX) and self.is_valid(svm, GHCB_RBX)):
                return self.malformed(vcpu, INVALID_INPUT)
            data_gpa, data_npages = svm.regs[GHCB_RAX], svm.regs[GHCB_RBX]
            if data_gpa % PAGE_SIZE:
                return self.malformed(vcpu, INVALID_INPUT)
            if sev.certs_enabled:
                self.port.run_exit(vcpu, EXIT_SNP_REQ_CERTS, data_gpa, data_npages, 0)
                svm.complete_userspace_io = self.snp_complete_req_certs
                return EXIT
            if data_npages and self.clear_table(sev, data_gpa, data_npages):
                return -EIO
        return self.snp_handle_guest_req(vcpu, req_gpa, resp_gpa)

    def read_msg_type(self, sev: SevInfo, vcpu: int, req_gpa: int) -> int:
        """One byte of the message, or a negative errno; a variable of the stack in Linux."""
        stack = self.port.kzalloc(1)
        if not stack:
            return -ENOMEM
        ret = self.port.read_guest(sev.vm, req_gpa + MSG_TYPE, stack, 1)
        msg_type = -EIO if ret else self.port.load(stack, 1)
        self.port.kfree(stack)
        return msg_type

    def clear_table(self, sev: SevInfo, data_gpa: int, data_npages: int) -> int:
        """kvm_clear_guest: an entry of zeroes ends the table."""
        return self.port.clear_guest(sev.vm, data_gpa, self.CLEARED)

    def snp_complete_req_certs(self, vcpu: int) -> int:
        """Userspace has put certificates there, or says why not."""
        svm = self.vcpus[vcpu]
        match self.port.run_read(vcpu, RUN_RET):
            case 0:
                return self.snp_handle_guest_req(vcpu, svm.exit_info_1, svm.exit_info_2)
            case ret if ret == ENOSPC:
                svm.regs[GHCB_RBX] = self.port.run_read(vcpu, RUN_NPAGES)
                return self.tell(vcpu, TOO_SMALL_INFO2)
            case ret if ret == EAGAIN:
                return self.tell(vcpu, BUSY_INFO2)
            case ret if ret == EIO:
                return self.tell(vcpu, GENERIC_INFO2)
        return -EINVAL

    # -- drivers/crypto/ccp/sev-dev.c

    def snp_free_firmware_page(self, address: int) -> None:
        """__snp_free_firmware_pages: a page that cannot be reclaimed is leaked, not freed."""
        if self.snp_reclaim_pages(address >> 12):
            return
        self.port.free_page(address)

    def snp_reclaim_pages(self, pfn: int) -> int:
        """Reclaimed, then shared; leaked when either fails."""
        ret = self.port.snp_page_reclaim(pfn) or self.port.rmp_make_shared(pfn)
        if ret:
            self.port.leak_page(pfn)
        return ret


def psp_pa(address: int) -> int:
    """__psp_pa: a physical address as firmware takes it."""
    return address | 1 << C_BIT
