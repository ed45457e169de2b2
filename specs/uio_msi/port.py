"""What a driver is, and what it may call."""

from __future__ import annotations

from typing import Protocol

MAPS_TYPE = tuple[tuple[str, int, int, int, int], ...]
"""mem[] as registered: name, addr, offs, size, memtype."""
PORTS_TYPE = tuple[tuple[str, int, int, int], ...]
"""port[] as registered: name, start, size, porttype."""

OPTIONAL = {"compat_ioctl": "compat", "irqcontrol": "irqcontrol"}
"""Entry points of `Candidate` that need a capability."""


class Candidate(Protocol):
    """A driver: what the harness calls. It is given the `Port` when it is created.

    One object lives through any number of bindings of one device, like a loaded module. What a driver must do that no
    call asks for stands in docs/uio_msi.md.
    """

    def probe(self, irq: int, hdr_type: int, is_virtfn: bool) -> int:
        """Bind the device; `irq`, `hdr_type` and `is_virtfn` as in struct pci_dev. 0 or a negative errno.

        `irq` is the function's INTx line, 0 or IRQ_NOTCONNECTED (0x80000000) where its pin leads nowhere; it is 0 for a
        VF, and may be any of these beside MSI-X. `hdr_type` is without the multi-function bit: 0, 1 for
        a bridge, 2 for a CardBus bridge.
        """
        ...

    def remove(self) -> None:
        """Unbind the device; there may be open handles."""
        ...

    def open(self) -> int:
        """A handle of /dev/uioN was opened. 0, or a negative errno and the handle does not exist.

        The one place to ask `capable`; who lacks it gets -EPERM or -EACCES.
        """
        ...

    def release(self) -> int:
        """A handle was closed. 0."""
        ...

    def ioctl(self, cmd: int, arg: int) -> int:
        """Handle command `cmd` (32 bits) with the user pointer `arg`. 0 or a negative errno."""
        ...

    def compat_ioctl(self, cmd: int, arg: int) -> int:
        """As `ioctl`, for a 32-bit caller; `arg` is converted already. Needs `compat`."""
        ...

    def irqcontrol(self, on: int) -> int:
        """User space wrote `on` to the device. 0 or a negative errno. Needs `irqcontrol`.

        With INTx mapped 0 masks and 1 unmasks, and both return 0; another number unmasks, or is refused and does
        nothing. With MSI-X, and while nothing is mapped, any answer will do, and nothing happens.
        """
        ...

    def handler(self, irq: int, dev_id: int) -> int:
        """The interrupt handler of every `request_irq`. IRQ_NONE or IRQ_HANDLED. Must not sleep.

        Where the kernel has a function for each, this is one for all: `irq` tells INTx from MSI-X. It may read config
        space, use the INTx calls below and take spinlocks.
        """
        ...


class Port(Protocol):
    """What the driver may call: the kernel and the device behind it.

    Pointers are opaque ints, NULL is 0. What lives in memory of the driver (a mutex, a dev_id) is
    named by an address in an allocation of `kzalloc` or `kcalloc`: its token plus an offset;
    addresses below 0x1000 stand for static data of the module, which all functions that it drives share.
    A dev_id may also be an eventfd's context. Nothing here must be called that a driver can do without: neither
    regions nor `ioremap` nor names are needed for what it does.
    """

    def pci_enable_device(self) -> int:
        """Power the function up. 0 or a negative errno."""
        ...

    def pci_disable_device(self) -> None:
        """Undo one pci_enable_device; the last one turns bus mastering off. No action, no MSI-X may be left."""
        ...

    def pci_request_regions(self, name: str) -> int:
        """Claim all BARs. 0 or -EBUSY."""
        ...

    def pci_release_regions(self) -> None:
        """Give the BARs back."""
        ...

    def pci_set_master(self) -> None:
        """Let the function do DMA, and so send MSI-X messages."""
        ...

    def pci_clear_master(self) -> None:
        """Stop the function's DMA."""
        ...

    def pci_resource_start(self, bar: int) -> int:
        """Bus address of BAR `bar` (0 to 5), 0 if there is none."""
        ...

    def pci_resource_len(self, bar: int) -> int:
        """Bytes of BAR `bar`, 0 if there is none or it is the upper half of a 64-bit one."""
        ...

    def pci_resource_flags(self, bar: int) -> int:
        """IORESOURCE_MEM or IORESOURCE_IO, 0 if there is none."""
        ...

    def pci_find_capability(self, cap: int) -> int:
        """Offset of capability `cap` in config space, 0 if there is none."""
        ...

    def pci_read_config(self, where: int, size: int) -> int:
        """`size` (1, 2 or 4) bytes of config space at `where`, little endian."""
        ...

    def pci_write_config(self, where: int, size: int, value: int) -> None:
        """Write config space. The command register only under pci_cfg_access_lock (`pci_intx` needs no such lock)."""
        ...

    def pci_cfg_access_lock(self) -> None:
        """Keep user space, and others who hold it, out of config space; may sleep."""
        ...

    def pci_cfg_access_unlock(self) -> None:
        """End of pci_cfg_access_lock."""
        ...

    def pci_reset_function(self) -> int:
        """Reset the function; config space and MSI-X messages are as before then. 0 or a negative errno."""
        ...

    def pci_msix_vec_count(self) -> int:
        """Size of the MSI-X table, or -EINVAL without MSI-X."""
        ...

    def pci_enable_msix(self, entries: tuple[int, ...]) -> int:
        """Enable MSI-X with these table entries. 0; a negative errno; or k > 0: nothing done, k could be had.

        All vectors are masked until their first request_irq. `pci_irq_vector` gives the irq numbers, which are others
        at every enabling: one that was a vector's may be another vector's now, or another device's. INTx is
        disabled meanwhile: this sets the disable bit, and disabling MSI-X clears it, whatever it was before.
        """
        ...

    def pci_enable_msix_range(self, entries: tuple[int, ...], minvec: int, maxvec: int) -> int:
        """Enable between `minvec` and `maxvec` vectors. How many, or a negative errno (-ENOSPC)."""
        ...

    def pci_disable_msix(self) -> None:
        """Disable MSI-X and give the irq numbers back; no vector may have an action. No-op while disabled."""
        ...

    def pci_alloc_irq_vectors(self, min_vecs: int, max_vecs: int) -> int:
        """pci_enable_msix_range over entries 0 and up (PCI_IRQ_MSIX)."""
        ...

    def pci_free_irq_vectors(self) -> None:
        """Same as pci_disable_msix."""
        ...

    def pci_irq_vector(self, nr: int) -> int:
        """The irq number of the `nr`-th enabled vector; -EINVAL while MSI-X is off or out of range."""
        ...

    def pci_write_msi_msg(self, irq: int) -> None:
        """Write the cached message (get_cached_msi_msg) of `irq` into its table entry again."""
        ...

    def pci_intx_mask_supported(self) -> int:
        """1 if the disable bit of the command register works, else 0."""
        ...

    def pci_check_and_mask_intx(self) -> int:
        """If the function asserts INTx: set the disable bit, set already or not, and return 1; else 0.

        On a shared line a handler that is called while the bit is set was not called for this function; only the
        command register says so, since user space may write it as well.
        """
        ...

    def pci_check_and_unmask_intx(self) -> int:
        """If the function asserts INTx: leave the disable bit and return 0; else clear it and return 1."""
        ...

    def pci_intx(self, enable: int) -> None:
        """Clear (1) or set (0) the disable bit."""
        ...

    def pci_set_drvdata(self, data: int) -> None:
        """Remember one pointer with the device."""
        ...

    def pci_get_drvdata(self) -> int:
        """The pointer remembered; NULL after remove and after a failed probe."""
        ...

    def ioremap(self, addr: int, size: int) -> int:
        """Map device memory. A token, or NULL."""
        ...

    def iounmap(self, token: int) -> None:
        """Unmap; each token once."""
        ...

    def kzalloc(self, size: int) -> int:
        """Allocate. A token, or NULL."""
        ...

    def kcalloc(self, n: int, size: int) -> int:
        """Allocate an array. A token, or NULL."""
        ...

    def kasprintf(self, text: str) -> int:
        """Allocate a string. A token, or NULL."""
        ...

    def kfree(self, token: int) -> None:
        """Free what kzalloc, kcalloc or kasprintf gave; NULL is fine."""
        ...

    def copy_from_user(self, src: int, n: int) -> bytes:
        """Fetch `n` bytes at user address `src`: what could be copied, shorter than `n` where it faults."""
        ...

    def capable(self, cap: int) -> int:
        """1 if the calling process has the capability, else 0."""
        ...

    def request_irq(self, irq: int, flags: int, name: int, dev_id: int) -> int:
        """Install `Candidate.handler`. 0 or a negative errno. The handler may run before this returns.

        `name` is a token of kasprintf, referenced until free_irq, or 0 for a constant string. `dev_id` is handed to the
        handler. With IRQF_SHARED it is not NULL and the function's own on that line; with MSI-X several vectors may
        have the same. IRQ_NOTCONNECTED is answered with -ENOTCONN.
        """
        ...

    def free_irq(self, irq: int, dev_id: int) -> None:
        """Remove the action of exactly this `dev_id`, and wait for its running handlers."""
        ...

    def synchronize_irq(self, irq: int) -> None:
        """Wait for running handlers of `irq`."""
        ...

    def eventfd_ctx_fdget(self, fd: int) -> int:
        """A counted reference to the eventfd that `fd` names in the calling process, or -EBADF, -EINVAL."""
        ...

    def eventfd_ctx_put(self, ctx: int) -> None:
        """Drop one reference."""
        ...

    def eventfd_signal(self, ctx: int) -> None:
        """Add 1 to the counter; never sleeps, and may be called by a process as well as by a handler."""
        ...

    def mutex_init(self, mutex: int) -> None:
        """Initialise the mutex at this address; static ones need no initialisation."""
        ...

    def mutex_lock(self, mutex: int) -> None:
        """Take the mutex; may sleep."""
        ...

    def mutex_unlock(self, mutex: int) -> None:
        """Release the mutex that this thread holds."""
        ...

    def spin_lock_irqsave(self, lock: int) -> None:
        """Take a spinlock; atomic context until it is released."""
        ...

    def spin_unlock_irqrestore(self, lock: int) -> None:
        """Release a spinlock."""
        ...

    def uio_register_device(
        self, name: str, version: str, irq: int, irqcontrol: bool, mem: MAPS_TYPE, port: PORTS_TYPE
    ) -> int:
        """Make /dev/uioN appear; opens may follow at once. 0 or a negative errno.

        `name` and `version` are any but empty. `irq` is UIO_IRQ_CUSTOM for a driver that requests its irqs itself;
        with UIO_IRQ_NONE nobody can write to the device, and with a number the core requests that line and calls
        a handler of its own, which there is none of here. `irqcontrol` says whether the driver has that callback.
        Entries of `mem` are (name, addr, offs, size, memtype), of `port` (name, start, size, porttype); the pieces of
        a BAR that is split around the MSI-X table all bear its name.
        """
        ...

    def uio_unregister_device(self) -> None:
        """Make /dev/uioN disappear; with the 6.x core no callback is running or called after this."""
        ...

    def uio_event_notify(self) -> None:
        """Wake the readers of /dev/uioN."""
        ...

    def dev_err(self, text: str) -> None:
        """Print a line."""
        ...

    def dev_warn(self, text: str) -> None:
        """Print a line."""
        ...

    def dev_info(self, text: str) -> None:
        """Print a line."""
        ...

    def dev_err_ratelimited(self, text: str) -> None:
        """Print a line unless ten were printed lately."""
        ...
