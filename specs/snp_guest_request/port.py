"""The two Protocols: what a candidate provides, and what it may call."""

from __future__ import annotations

from typing import Protocol

OPTIONAL = {
    "vm_create": "hypervisor",
    "sev_init": "hypervisor",
    "launch_start": "hypervisor",
    "launch_finish": "hypervisor",
    "enable_req_certs": "userspace-certs",
    "has_req_certs": "userspace-certs",
    "set_instance_certs": "kernel-certs",
    "get_instance_certs": "kernel-certs",
    "host_set_ext_config": "kernel-certs",
    "host_get_ext_config": "kernel-certs",
    "vcpu_create": "hypervisor",
    "ghcb_register": "hypervisor",
    "vmgexit": "hypervisor",
    "vcpu_continue": "userspace-certs",
    "ghcb_leave": "hypervisor",
    "decommission": "hypervisor",
    "vm_destroy": "hypervisor",
    "vm_move_from": "move",
    "vm_mirror_from": "move",
    "snp_shutdown": "hypervisor",
    "open": "guest",
    "get_report": "guest",
    "get_derived_key": "guest",
    "get_ext_report": "guest",
    "close": "guest",
    "parse_certs": "verifier",
}


class Candidate(Protocol):
    """Entry points of a hypervisor's handler (kind H) and of a guest's driver (kind G).

    VMs and vCPUs are numbered by the caller. Kind H answers 0 or a negative errno unless a method says more.
    """

    def vm_create(self, vm: int, kind: int) -> int:
        """Make an empty VM of kind SEV, SEV_ES or SNP."""

    def sev_init(self, vm: int) -> int:
        """Make it a protected VM: take what requests need, initialise its lock. Once; a second time is an error."""

    def launch_start(self, vm: int, fd: int, policy: int) -> int:
        """Create the guest context and bind it; `fd` is the file of the secure processor to keep.

        Bit 17 of a valid policy is 1 and those above 25 are 0; firmware refuses others too. Bit 20 is 0 in the valid
        ones here. What fails gives everything back, and a VM that is not initialised, or not SNP, is refused.
        """

    def launch_finish(self, vm: int) -> int:
        """Let the guest run; an error where the launch was not started, or is finished."""

    def enable_req_certs(self, vm: int) -> int:
        """Fetch certificates from userspace from now on (certs=userspace)."""

    def has_req_certs(self) -> int:
        """Attribute query: 1 when `enable_req_certs` exists and SNP is on (certs=userspace)."""

    def set_instance_certs(self, vm: int, user: int, length: int) -> int:
        """Install the VM's own certificates from user memory; length 0 removes them (certs=kernel).

        -ENOTTY where the VM is not SNP, -EINVAL without a guest context and above 0x4000 bytes, -EFAULT, -ENOMEM.
        """

    def get_instance_certs(self, vm: int, user: int, length: int) -> tuple[int, int]:
        """Copy the VM's own certificates to user memory: result and length needed (certs=kernel).

        -ENOTTY and -EINVAL as above, -ENOENT where there are none, -EINVAL with the length where it is too small.
        """

    def host_set_ext_config(self, tcb: int, user: int, length: int, writable: int) -> int:
        """Set the reported TCB unless `tcb` is 0, and the host's certificates; `user` 0 removes them (certs=kernel)."""

    def host_get_ext_config(self, user: int, length: int) -> tuple[int, int]:
        """Copy the host's certificates to user memory: result and length needed (certs=kernel)."""

    def vcpu_create(self, vcpu: int, vm: int) -> int:
        """Add a vCPU; it exits through the GHCB."""

    def ghcb_register(self, vcpu: int, gpa: int) -> int:
        """The guest registers its GHCB page by the MSR protocol; the page that it registered last counts."""

    def vmgexit(self, vcpu: int, gpa: int) -> int:
        """Handle an exit whose GHCB is at `gpa`: RESUME, EXIT with the run structure filled, or -errno.

        The answer is stored by `ghcb_leave` at the latest, with the valid bits of its fields; those of the input may be
        cleared. A guest whose GHCB cannot be mapped may be resumed with nothing written.
        """

    def vcpu_continue(self, vcpu: int) -> int:
        """Continue after EXIT; userspace has answered in the run structure. Results as for `vmgexit`."""

    def ghcb_leave(self, vcpu: int) -> int:
        """The vCPU is about to enter the guest, failed with an errno, or is freed: give registers and GHCB back."""

    def decommission(self, vm: int) -> int:
        """Give the guest context up.

        0 where there is none. When firmware refuses, its errno: the context is then leaked and never used again, or
        kept, to be tried again when the VM goes.
        """

    def vm_destroy(self, vm: int) -> int:
        """Free what is left of the VM; its vCPUs are gone."""

    def vm_move_from(self, dst: int, src: int) -> int:
        """Move a running VM into an empty one on the same host."""

    def vm_mirror_from(self, dst: int, src: int) -> int:
        """Let an empty VM share the encryption context of another."""

    def snp_shutdown(self) -> int:
        """SNP is shut down on the whole host; it is initialised again before the next VM."""

    def open(self, vmpck: int) -> int:
        """Kind G: start using key `vmpck` of the secrets page; an errno where there is none, or it is zeros."""

    def get_report(self, data: bytes, vmpl: int) -> tuple[int, int, bytes]:
        """Kind G: result, exitinfo2 for the caller, and the decrypted answer (0x4C0 bytes) or b"".

        exitinfo2 is what the host answered in SW_EXITINFO2; free where nothing was sent, or nothing came of it.
        """

    def get_derived_key(self, fields: int, vmpl: int, svn: int, tcb: int) -> tuple[int, int, bytes]:
        """Kind G: result, exitinfo2, and the decrypted answer (0x40 bytes) or b""."""

    def get_ext_report(
        self, data: bytes, vmpl: int, certs_len: int, address: int
    ) -> tuple[int, int, bytes, bytes, int]:
        """Kind G: result, exitinfo2, answer, certificate buffer, and length needed.

        `address` is 0 when the caller gives no buffer for certificates; the buffer is then b"". The length needed is 0
        where nothing was too small.
        """

    def close(self) -> int:
        """Kind G: stop, and give the shared pages back."""

    def parse_certs(self, table: bytes) -> tuple[int, tuple[tuple[bytes, bytes], ...]]:
        """Result, and each certificate of the table by its GUID, in the table's order.

        A table with a bad entry gives an errno and (), or 0 and those before it; never 0 and () as an empty one does.
        """


class Port(Protocol):
    """Environment calls; 0 or a negative errno unless a method says more.

    Host memory is addressed by int: pages lie at pfn << 12, small allocations elsewhere, NULL is 0.
    """

    # -- GHCB and run structure

    def ghcb_map(self, vcpu: int, gpa: int) -> int:
        """Map the page as the vCPU's GHCB; again while it is mapped, or after it was, is no harm."""

    def ghcb_read(self, vcpu: int, offset: int, size: int) -> int:
        """Little-endian value of `size` bytes, as the guest has them now: it may store there between two calls."""

    def ghcb_write(self, vcpu: int, offset: int, value: int) -> int:
        """Store 8 bytes for the guest."""

    def ghcb_unmap(self, vcpu: int) -> int:
        """Undo `ghcb_map`."""

    def run_exit(self, vcpu: int, reason: int, gpa: int, npages: int, ret: int) -> int:
        """Fill the run structure for an exit to userspace."""

    def run_read(self, vcpu: int, field: int) -> int:
        """RUN_NPAGES or RUN_RET, as userspace has it now."""

    # -- host memory

    def alloc_page(self, zero: int) -> int:
        """Address of a host page, zeroed if asked for; 0 when memory is short."""

    def free_page(self, address: int) -> int:
        """Give a host page back to the allocator."""

    def alloc_fw_page(self) -> int:
        """Address of a zeroed page in RMP state FIRMWARE; 0 when memory is short or the transition fails."""

    def leak_page(self, pfn: int) -> int:
        """Never use this page again; said once, of a page that could not be had back."""

    def kmalloc(self, size: int) -> int:
        """Address of `size` bytes whose content is whatever was there; 0 when memory is short."""

    def kzalloc(self, size: int) -> int:
        """Address of `size` zero bytes; 0 when memory is short."""

    def kfree(self, address: int) -> int:
        """Give an allocation back; 0 is allowed."""

    def load(self, address: int, size: int) -> int:
        """Little-endian value of `size` bytes of host memory."""

    def memcpy(self, destination: int, source: int, size: int) -> int:
        """Copy host memory."""

    def memset(self, address: int, value: int, size: int) -> int:
        """Fill host memory."""

    def copy_from_user(self, address: int, user: int, size: int) -> int:
        """Copy from the caller's memory; -EFAULT may come after a part was copied."""

    def copy_to_user(self, user: int, address: int, size: int) -> int:
        """Copy to the caller's memory; -EFAULT may come after a part was copied."""

    # -- guest memory

    def read_guest(self, vm: int, gpa: int, address: int, size: int) -> int:
        """Copy guest memory to host memory; -EFAULT where no page is mapped."""

    def write_guest(self, vm: int, gpa: int, address: int, size: int) -> int:
        """Copy host memory to guest memory; -EFAULT where no writable page is mapped."""

    def clear_guest(self, vm: int, gpa: int, size: int) -> int:
        """Zero guest memory; -EFAULT where no writable page is mapped."""

    def gfn_to_pfn(self, vm: int, gfn: int) -> int:
        """Page frame behind a guest page, with a reference; -EFAULT where no writable page is mapped."""

    def put_pfn(self, pfn: int) -> int:
        """Drop the reference."""

    # -- RMP

    def rmp_lookup(self, pfn: int) -> int:
        """The page's RMP state, HYPERVISOR to GUEST_VALID."""

    def rmp_make_private(self, pfn: int, gpa: int, asid: int, immutable: int) -> int:
        """RMPUPDATE to assigned."""

    def rmp_make_shared(self, pfn: int) -> int:
        """RMPUPDATE to the all-zero entry."""

    # -- firmware; addresses carry the C-bit, `error` is what the caller's status variable holds before

    def snp_gctx_create(self, fd: int, gctx: int, error: int) -> tuple[int, int]:
        """Make a FIRMWARE page a guest context: result and status."""

    def snp_launch_start(self, fd: int, gctx: int, policy: int, error: int) -> tuple[int, int]:
        """Begin the launch: result and status."""

    def snp_activate(self, fd: int, gctx: int, asid: int, error: int) -> tuple[int, int]:
        """Bind the context to an ASID: result and status."""

    def snp_launch_finish(self, fd: int, gctx: int, error: int) -> tuple[int, int]:
        """End the launch: result and status."""

    def snp_decommission(self, fd: int, gctx: int, error: int) -> tuple[int, int]:
        """Turn the context page into a FIRMWARE page again: result and status."""

    def snp_guest_request(self, fd: int, gctx: int, request: int, response: int, error: int) -> tuple[int, int]:
        """Have firmware answer a guest message.

        Returns:
            (0, 0)             done
            (-EIO, status)     firmware refused with that status
            (-ETIMEDOUT, 0)    firmware did not answer and is dead from now on
            (-errno, error)    no command reached firmware, the caller's variable is as it was
        """

    def snp_page_reclaim(self, pfn: int) -> int:
        """Have firmware give a page back: the entry is no longer immutable."""

    def snp_config(self, tcb: int) -> int:
        """Set the TCB that reports show."""

    def psp_is_dead(self) -> int:
        """1 once a command has timed out."""

    # -- locks, identities, others

    def mutex_init(self, name: str) -> int:
        """Make a lock of that name usable; it goes with the VM, or the guest's driver, in whose operation that happens.

        A lock of the whole host is made when the candidate is created.
        """

    def mutex_lock(self, name: str) -> int:
        """Wait for the lock."""

    def mutex_lock_killable(self, name: str) -> int:
        """Wait for the lock; -EINTR when the waiter is killed."""

    def mutex_unlock(self, name: str) -> int:
        """Release the lock."""

    def alloc_asid(self) -> int:
        """An address-space id, above 0."""

    def free_asid(self, asid: int) -> int:
        """Give an address-space id back."""

    def ratelimit(self, vm: int) -> int:
        """1 while the VM is within its rate of 2 requests per 2 s, else 0."""

    def vm_bug(self, vm: int) -> int:
        """Mark the VM bugged: it never runs again."""

    # -- kind G

    def read_secrets(self, offset: int, size: int) -> bytes:
        """Bytes of the guest's secrets page."""

    def write_secrets(self, offset: int, data: bytes) -> int:
        """Store into the guest's secrets page."""

    def alloc_pages(self, npages: int) -> int:
        """Guest-physical address of private pages, which hold whatever was there; 0 when memory is short."""

    def free_pages(self, gpa: int) -> int:
        """Give them back to the guest's allocator."""

    def leak_pages(self, gpa: int) -> int:
        """Never use them again."""

    def set_decrypted(self, gpa: int) -> int:
        """Share the pages with the host."""

    def set_encrypted(self, gpa: int) -> int:
        """Make the pages private again."""

    def shared_read(self, gpa: int, size: int) -> bytes:
        """Bytes as they are now; the host may change them at any time."""

    def shared_write(self, gpa: int, data: bytes) -> int:
        """Store into pages; the host sees it."""

    def gcm_encrypt(self, key: bytes, iv: bytes, aad: bytes, payload: bytes) -> bytes:
        """AES-256-GCM: ciphertext and 16 bytes of tag."""

    def gcm_decrypt(self, key: bytes, iv: bytes, aad: bytes, data: bytes) -> bytes:
        """The payload, or b"" when the tag does not fit; no message here has an empty payload."""

    def guest_exit(self, code: int, info1: int, info2: int, rax: int, rbx: int) -> tuple[int, int, int]:
        """VMGEXIT: SW_EXITINFO1, SW_EXITINFO2 and RBX as the host left them."""

    def sleep(self, seconds: int) -> int:
        """Let time pass."""

    def now(self) -> int:
        """Seconds since the guest started."""
