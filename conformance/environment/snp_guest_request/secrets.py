"""The secrets page of a guest."""

# ruff: noqa: D102  # environment calls are described in the port

from __future__ import annotations

from conformance.environment.door import Environment
from conformance.environment.simulator import Simulator
from conformance.environment.snp_guest_request.firmware import vmpck
from conformance.specs.snp_guest_request.constants import PAGE_SIZE, SECRETS_SEQNO, SECRETS_VMPCK

KEY_SIZE = 32


class SecretsPage(Simulator):
    """The page that firmware fills at launch: four keys, and the sequence numbers that the guest keeps there.

    It outlives the guest's kernel. The rest of the page is zero.
    """

    def __init__(self, door: Environment, counts: tuple[int, ...]) -> None:
        super().__init__(door)
        self.page = bytearray(PAGE_SIZE)
        for i, count in enumerate(counts):
            at = SECRETS_VMPCK + i * KEY_SIZE
            self.page[at : at + KEY_SIZE] = vmpck(0, i)
            at = SECRETS_SEQNO + 4 * i
            self.page[at : at + 4] = (count & 0xFFFFFFFF).to_bytes(4, "little")

    def read_secrets(self, offset: int, size: int) -> bytes:
        return bytes(self.page[offset : offset + size])

    def write_secrets(self, offset: int, data: bytes) -> int:
        self.page[offset : offset + len(data)] = data
        return 0

    @property
    def wiped(self) -> tuple[bool, ...]:
        """Which keys are wiped."""
        keys = (self.page[SECRETS_VMPCK + i * KEY_SIZE : SECRETS_VMPCK + (i + 1) * KEY_SIZE] for i in range(4))
        return tuple(not any(key) for key in keys)
