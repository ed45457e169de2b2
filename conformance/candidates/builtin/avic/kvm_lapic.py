"""A router that routes as KVM's local APIC does."""

from __future__ import annotations

from typing import Any

from conformance.specs.avic import Apics, IrqfdActs, Message
from conformance.specs.avic.constants import CLUSTER, EAGAIN, EBADF, EBUSY, EINVAL, FLAT, LOWEST, X2_ICR_RESERVED

EPERM_RETURN = -1
MAX_ROUTES = 4096
"""KVM_MAX_IRQ_ROUTES."""


class KvmLapic:
    """Route as kvm_irq_delivery_to_apic does: through the optimised map if it can, one by one if not."""

    profile = "kvm-lapic"
    capabilities = frozenset({"layer-r", "kvm-return", "irqfd"})

    def __init__(self, port: Any) -> None:
        self.port = port
        self.phys_map: dict[int, int] = {}
        self.valid = True
        self.logical_mode = ""
        self.logical_map: list[int] = []
        self.max_id = 255

    def irq_routing(self) -> int:
        """What KVM_CAP_IRQ_ROUTING tells."""
        return MAX_ROUTES

    def route(self, apics: Apics, message: Message) -> int:
        """The mask of those that accept."""
        if message[0] >= 0 and apics[message[0]][1] == 2 and message[9] >> 32 & X2_ICR_RESERVED:
            return -1
        return self._deliver(apics, message)[0]

    def signal_msi(self, apics: Apics, message: Message) -> int:
        """The count that the ioctl returns."""
        return self._deliver(apics, message)[1]

    def irqfds(self, acts: IrqfdActs) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """Each act in turn, by the method of its name."""
        self.table: dict[int, int] = {}
        self.gsi_of: dict[int, int] = {}
        self.counts = [0, 0, 0]
        return tuple(getattr(self, f"_{what}")(fd, n, table) for what, fd, n, table in acts)

    def _route(self, _fd: int, _n: int, table: tuple[tuple[int, int], ...]) -> tuple[int, tuple[int, ...]]:
        """kvm_set_irq_routing."""
        new: dict[int, int] = {}
        for gsi, vector in table:
            if gsi >= MAX_ROUTES or gsi in new:
                return -EINVAL, ()
            new[gsi] = vector
        self.table = new
        return 0, ()

    def _assign(self, fd: int, gsi: int, _table: object) -> tuple[int, tuple[int, ...]]:
        """kvm_irqfd_assign."""
        if error := self._fdget(fd):
            return error, ()
        if fd in self.gsi_of:
            return -EBUSY, ()
        self.gsi_of[fd] = gsi
        return 0, self._inject(fd) if self.counts[fd] else ()

    def _deassign(self, fd: int, gsi: int, _table: object) -> tuple[int, tuple[int, ...]]:
        """kvm_irqfd_deassign."""
        if error := self._fdget(fd):
            return error, ()
        if self.gsi_of.get(fd) == gsi:
            del self.gsi_of[fd]
        return 0, ()

    def _write(self, fd: int, n: int, _table: object) -> tuple[int, tuple[int, ...]]:
        """eventfd_write, and irqfd_wakeup."""
        self.counts[fd] += n
        if fd not in self.gsi_of:
            return 0, ()
        self.counts[fd] = 0
        return 0, self._inject(fd)

    def _read(self, fd: int, _n: int, _table: object) -> tuple[int, tuple[int, ...]]:
        """eventfd_read."""
        count, self.counts[fd] = self.counts[fd], 0
        return count or -EAGAIN, ()

    @staticmethod
    def _fdget(fd: int) -> int:
        """eventfd_ctx_fdget."""
        return {3: -EINVAL, 4: -EBADF}.get(fd, 0)

    def _inject(self, fd: int) -> tuple[int, ...]:
        """kvm_set_irq."""
        vector = self.table.get(self.gsi_of[fd])
        return () if vector is None else (vector,)

    def _recalculate(self, apics: Apics, wide: int) -> None:
        """kvm_recalculate_apic_map."""
        self.phys_map, self.valid, self.max_id = {}, True, 255
        phys = self.phys_map
        for n, (ident, mode, _, _, _) in enumerate(apics):
            if mode == 0:
                continue
            vcpu_id = ident & 0xFFFFFFFF
            xid = ident >> 32 & 0xFF if ident >> 40 & 1 else vcpu_id & 0xFF
            self.max_id = max(self.max_id, vcpu_id)
            if wide:
                if mode == 2 or vcpu_id > 0xFF:
                    phys[vcpu_id] = n
                if mode == 1:
                    phys.setdefault(xid, n)
            else:
                key = vcpu_id if mode == 2 else xid
                if key in phys:
                    self.valid = False
                phys[key] = n
        self._recalculate_logical(apics)

    def _recalculate_logical(self, apics: Apics) -> None:
        self.logical_mode, self.logical_map = "", [-1] * 256
        for n, (_, mode, spiv, ldr, dfr) in enumerate(apics):
            if mode == 0 or not spiv & 0x100 or not ldr:
                continue
            kind = "x2" if mode == 2 else "flat" if dfr == FLAT else "cluster"
            if self.logical_mode and self.logical_mode != kind:
                self.logical_mode = "disabled"
                return
            self.logical_mode = kind
            if kind == "x2":
                continue
            ldr >>= 24  # noqa: PLW2901  # the logical id is all that counts from here
            table = 0 if kind == "flat" else ldr & 0xF0
            bits = ldr if kind == "flat" else ldr & 0x0F
            if not bits:
                continue
            slot = table + bits.bit_length() - 1
            if bits & bits - 1 or self.logical_map[slot] >= 0:
                self.logical_mode = "disabled"
                return
            self.logical_map[slot] = n

    def _map_get(self, message: Message) -> list[int] | None:
        """kvm_apic_map_get_dest_lapic: the slots named, -1 for an empty one; None if the map cannot tell."""
        _, dest, logical, _, mode, vector, _, _, hint, _ = message
        if not logical:
            return [self.phys_map.get(dest, -1)] if dest <= self.max_id else []
        kind = self.logical_mode
        if kind == "disabled":
            return None
        if kind == "":
            return []
        if kind == "x2":
            start, bits = dest >> 16 << 4, dest & 0xFFFF
            slots = [self.phys_map.get(start + b, -1) for b in range(16) if bits >> b & 1 and start + b <= self.max_id]
        else:
            start, bits = (0, dest & 0xFF) if kind == "flat" else (dest & 0xF0, dest & 0x0F)
            slots = [self.logical_map[start + b] for b in range(8) if bits >> b & 1]
        if (mode == LOWEST or hint) and slots:
            return [slots[vector % len(slots)]]
        return slots

    def _deliver(self, apics: Apics, message: Message) -> tuple[int, int]:
        """kvm_irq_delivery_to_apic: (mask, accepted or -1)."""
        sender, dest, logical, shorthand, mode, vector, level, asserted, hint, flags = message
        if level and not asserted:
            return 0, 0
        if shorthand == 1:
            return self._accept(apics, [sender])
        self._recalculate(apics, flags & 1)
        quirk = not flags & 2
        if quirk:
            broadcast = dest == (0xFFFFFFFF if sender >= 0 and apics[sender][1] == 2 else 0xFF)
        else:
            broadcast = dest == 0xFFFFFFFF or (dest == 0xFF and self.logical_mode != "x2")
        if self.valid and not shorthand and not broadcast:
            slots = self._map_get(message)
            if slots is not None:
                return self._accept(apics, [n for n in slots if n >= 0])
        lowest = bool(mode == LOWEST or hint)
        if dest == 0xFF and not logical and mode == LOWEST:
            lowest = bool(hint)
        matched = []
        for n, apic in enumerate(apics):
            if apic[1] == 0:
                continue
            if shorthand == 3:
                hit = n != sender
            elif shorthand == 2:
                hit = True
            else:
                hit = self._match(apic, sender < 0 and quirk, dest, logical)
            if hit and (not lowest or apic[2] & 0x100):
                matched.append(n)
        if not matched:
            return 0, EPERM_RETURN
        if lowest:
            matched = [matched[vector % len(matched)]]
        return self._accept(apics, matched)

    @staticmethod
    def _match(apic: tuple[int, int, int, int, int], msi_quirk: bool, dest: int, logical: int) -> bool:
        """kvm_apic_match_dest without a shorthand."""
        ident, mode, _, ldr, dfr = apic
        vcpu_id = ident & 0xFFFFFFFF
        if mode == 2:
            if msi_quirk and dest == 0xFF:
                return True
            if dest == 0xFFFFFFFF:
                return True
            if logical:
                return ldr >> 16 == dest >> 16 and (ldr & dest & 0xFFFF) > 0
            return dest == vcpu_id
        if dest == 0xFF:
            return True
        if not logical:
            xid = ident >> 32 & 0xFF if ident >> 40 & 1 else vcpu_id & 0xFF
            return dest == (vcpu_id if dest > 0xFF else xid)
        ldr >>= 24
        if dfr == FLAT:
            return ldr & dest > 0
        if dfr == CLUSTER:
            return ldr >> 4 == dest >> 4 and ldr & dest & 0xF > 0
        return False

    @staticmethod
    def _accept(apics: Apics, positions: list[int]) -> tuple[int, int]:
        """__apic_accept_irq for each: only software-enabled APICs count."""
        bits = count = 0
        for n in positions:
            if apics[n][1] and apics[n][2] & 0x100:
                bits |= 1 << n
                count += 1
        return bits, count
