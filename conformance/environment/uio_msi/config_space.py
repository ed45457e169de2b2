"""The function's config space and its BARs."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from conformance.environment.locks import Locks
from conformance.environment.simulator import Simulator
from conformance.model.uio_msi import Config
from conformance.model.uio_msi.operations import Bar
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi import constants as k
from conformance.verdict import HarnessError, Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment
    from conformance.environment.uio_msi.context import Context
    from conformance.environment.uio_msi.device import Device
    from conformance.environment.uio_msi.intx import Intx
    from conformance.environment.uio_msi.msix import Msix

MSIX_CAP = 0x40
"""Offset of the MSI-X capability."""


class ConfigSpace(Simulator):
    """256 bytes as they can be read, of which only the command register can be written, and the resources.

    Only one capability is there, and no extended config space; a reset changes nothing but what the driver could
    lose by it: messages and the disable bit.
    """

    CLAUSES = (c.MEMORY_SAFE,)

    def __init__(
        self, door: Environment, context: Context, device: Device, intx: Intx, msix: Msix, config: Config
    ) -> None:
        super().__init__(door)
        self.context = context
        self.device = device
        self.intx = intx
        self.msix = msix
        self.config = config
        self.locks = Locks(door)
        """pci_cfg_access_lock."""

    def pci_resource_start(self, bar: int) -> int:
        """As the port says."""
        return self._bar(bar).start

    def pci_resource_len(self, bar: int) -> int:
        """As the port says."""
        return self._bar(bar).size

    def pci_resource_flags(self, bar: int) -> int:
        """As the port says."""
        resource = self._bar(bar)
        if not resource.size:
            return 0
        return k.IORESOURCE_IO if resource.io else k.IORESOURCE_MEM

    def _bar(self, bar: int) -> Bar:
        if not 0 <= bar < k.PCI_BARS:
            raise Violation(c.MEMORY_SAFE, f"BAR {bar} of a function that has 0 to {k.PCI_BARS - 1}")
        return self.config.bars[bar] if bar < len(self.config.bars) else Bar()

    @property
    def header_type(self) -> int:
        """As in config space, without the multi-function bit."""
        if self.config.cardbus:
            return k.PCI_HEADER_TYPE_CARDBUS
        return k.PCI_HEADER_TYPE_BRIDGE if self.config.bridge else 0

    def pci_find_capability(self, cap: int) -> int:
        """As the port says."""
        return MSIX_CAP if cap == k.PCI_CAP_ID_MSIX and self.config.vectors else 0

    def pci_read_config(self, where: int, size: int) -> int:
        """As the port says."""
        if size not in (1, 2, 4) or not 0 <= where <= 256 - size:
            raise Violation(c.MEMORY_SAFE, f"{size} bytes at {where:#x} of config space")
        if where <= k.PCI_COMMAND + 1 < where + size:
            self.intx.read_disable_bit()
        return int.from_bytes(self._contents()[where : where + size], "little")

    def _contents(self) -> bytes:
        config = self.config
        space = bytearray(256)
        command = (
            (3 if self.device.enabled else 0)
            | (k.PCI_COMMAND_MASTER if self.device.master else 0)
            | (k.PCI_COMMAND_INTX_DISABLE if self.intx.disable_bit else 0)
        )
        status = (0x10 if config.vectors else 0) | (k.PCI_STATUS_INTERRUPT if self.intx.asserted else 0)
        struct.pack_into("<HHHH", space, 0, 0x1AF4, 0x1041, command, status)
        space[k.PCI_HEADER_TYPE] = self.header_type
        if config.vectors:
            space[k.PCI_CAPABILITY_LIST] = MSIX_CAP
            flags = config.vectors - 1 | (k.PCI_MSIX_FLAGS_ENABLE if self.msix.order else 0)
            table = config.table_offset | config.table_bar
            pba = config.pba_offset | config.pba_bar
            struct.pack_into("<BBHII", space, MSIX_CAP, k.PCI_CAP_ID_MSIX, 0, flags, table, pba)
        return bytes(space)

    def pci_write_config(self, where: int, size: int, value: int) -> None:
        """As the port says; of what is written only the command register has an effect."""
        low, high = (where <= byte < where + size for byte in (k.PCI_COMMAND, k.PCI_COMMAND + 1))
        if not low and not high:
            return
        if self.door.frame not in self.locks.owners.values():
            raise Violation(c.MEMORY_SAFE, "the command register is written without pci_cfg_access_lock")
        command = value << 8 * where >> 8 * k.PCI_COMMAND
        if low:
            self.device.master = bool(command & k.PCI_COMMAND_MASTER)
        self.intx.write_command(bool(command & k.PCI_COMMAND_INTX_DISABLE) if high else self.intx.disable_bit)

    def pci_cfg_access_lock(self) -> None:
        """As the port says."""
        self.context.may_sleep("pci_cfg_access_lock")
        if not self.locks.take("config space", "pci_cfg_access_lock"):
            raise Violation(c.MEMORY_SAFE, "pci_cfg_access_lock: deadlock, it is held")

    def keep_user_out(self) -> None:
        """What pci_user_write_config waits for, before user space writes config space."""
        owners = self.locks.owners
        if owners and not self.door.wait_until("pci_cfg_access_lock", lambda: not owners):
            raise HarnessError("user space wrote config space in the middle of pci_cfg_access_lock")

    def pci_cfg_access_unlock(self) -> None:
        """As the port says."""
        if not self.locks.drop("config space"):
            raise Violation(c.MEMORY_SAFE, "pci_cfg_access_unlock by who does not hold it")

    def pci_reset_function(self) -> int:
        """As the port says: pci_restore_state gives back config space and messages."""
        self.device.must_be_enabled("pci_reset_function")
        return 0
