"""The cipher of a guest's kernel."""

# ruff: noqa: D102  # environment calls are described in the port

from __future__ import annotations

from conformance.environment.door import Environment
from conformance.environment.simulator import Simulator
from conformance.environment.snp_guest_request.crypto import Suite
from conformance.environment.snp_guest_request.shared_pages import SharedPages


class Cipher(Simulator):
    """AES-256-GCM, or what stands in for it; it keeps no keys. What it opens is not for the host."""

    def __init__(self, door: Environment, shared: SharedPages, suite: Suite) -> None:
        super().__init__(door)
        self.shared = shared
        self.suite = suite

    def gcm_encrypt(self, key: bytes, iv: bytes, aad: bytes, payload: bytes) -> bytes:
        return self.suite.encrypt(key, iv, aad, payload)

    def gcm_decrypt(self, key: bytes, iv: bytes, aad: bytes, data: bytes) -> bytes:
        opened = self.suite.decrypt(key, iv, aad, data) or b""
        self.shared.confide(opened)
        return opened
