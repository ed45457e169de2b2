"""Certificates that the kernel keeps: userspace hands them in, and has them copied out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from conformance.environment.snp_guest_request.blobs import blob_bytes, blobs_in
from conformance.environment.snp_guest_request.frames import HOST
from conformance.environment.snp_guest_request.user_copies import USER_BASE
from conformance.model.snp_guest_request.operations import (
    GetInstanceCerts,
    HostGetExtConfig,
    HostSetExtConfig,
    SetInstanceCerts,
)
from conformance.model.snp_guest_request.state import Blob
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import FW_BLOB_MAX_SIZE, PAGE_SIZE
from conformance.verdict import Crash, Violation

if TYPE_CHECKING:
    from conformance.environment.snp_guest_request.world import World


def set_instance_certs(world: World, op: SetInstanceCerts) -> int:
    """KVM_SEV_SNP_SET_CERTS."""
    _lend(world, op.blob, op.length)
    result = world.enter_int(world.driver.set_instance_certs, op.vm, USER_BASE, op.length)
    if result == 0:
        world.blobs.current[op.vm] = (op.blob, op.length)
    return result


def _lend(world: World, blob: str, length: int) -> None:
    """Put a blob in user memory; what follows it to the end of its page is the user's own business."""
    if 0 < length <= 0x8000:
        if length <= FW_BLOB_MAX_SIZE:
            world.blobs.installed[blob, length] = None
        size = -(-length // PAGE_SIZE) * PAGE_SIZE
        world.user.lent = blob_bytes(blob, length).ljust(size, b"\x55")


def get_instance_certs(world: World, op: GetInstanceCerts) -> object:
    """KVM_SEV_SNP_GET_CERTS."""
    world.user.room = bytearray(op.length)
    result = world.enter(world.driver.get_instance_certs, op.vm, USER_BASE, op.length)
    return _taken_out(world, result, op.length, world.blobs.current.get(op.vm))


def host_set_ext_config(world: World, op: HostSetExtConfig) -> int:
    """SNP_SET_EXT_CONFIG."""
    _lend(world, op.blob or "H", op.length)
    user = USER_BASE if op.blob else 0
    length = op.length if op.blob or op.length % PAGE_SIZE == 0 else 0  # of nothing, whole pages
    tcb = op.tcb << 56 | 0x16_0000_0000_0004 if op.tcb else 0
    result = world.enter_int(world.driver.host_set_ext_config, tcb, user, length, int(op.writable))
    if result == 0 and op.blob:
        world.blobs.current[HOST] = (op.blob, op.length)
    if result == 0:
        world.blobs.certs_tcb = {op.blob: tcb} if op.tcb and op.blob else {}
    return result


def host_get_ext_config(world: World, op: HostGetExtConfig) -> object:
    """SNP_GET_EXT_CONFIG."""
    world.user.room = bytearray(op.length)
    result = world.enter(world.driver.host_get_ext_config, USER_BASE, op.length)
    return _taken_out(world, result, op.length, world.blobs.current.get(HOST))


def _taken_out(world: World, result: Any, length: int, current: tuple[str, int] | None) -> object:
    """Result, pages of the length that was stored, and which blob came out."""
    if type(result) is not tuple or [type(value) for value in result] != [int, int]:
        raise Crash(f"returned {world.text_of(result)}, expected (result, length)", "type")
    ret, stored = result
    pages = -(-stored // PAGE_SIZE)
    if ret:
        return (ret, pages if ret != -2 and stored else 0, None)
    if not stored:
        return (0, 0, None)
    out = bytes(world.user.room[: min(stored, length)])
    newest = [current] if current is not None else []
    for name, size in world.blobs.candidates(newest):
        if size <= stored and -(-size // PAGE_SIZE) == pages and out.startswith(blob_bytes(name, size)):
            if any(out[size:]):
                raise Violation(c.NO_STALE_BLOB, f"{stored - size} bytes after the {size} of blob {name} are not zero")
            return (0, pages, Blob(name, size))
    if len(blobs_in(out)) > 1:
        raise Violation(c.BLOB_ATOMIC, f"a mixture of blobs {', '.join(sorted(blobs_in(out)))} comes out")
    return (0, pages, None)
