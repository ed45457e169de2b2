"""Certificates that the kernel keeps: a VM's own and the host's."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.matchers import ERRNO
from conformance.model.snp_guest_request.operations import (
    Answers,
    GetInstanceCerts,
    HostGetExtConfig,
    HostSetExtConfig,
    SetInstanceCerts,
)
from conformance.model.snp_guest_request.state import Blob, State, with_vm
from conformance.model.step import Outcome, Outcomes
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import (
    EFAULT,
    EINVAL,
    EIO,
    ENOENT,
    ENOMEM,
    ENOSR,
    ENOTTY,
    EPERM,
    FW_BLOB_MAX_SIZE,
    PAGE_SIZE,
    SNP,
)


def set_instance_certs(state: State, op: SetInstanceCerts, env: Answers) -> Outcomes:
    """Install, replace or remove the VM's own certificates.

    Which of two wrong arguments is found first is left open.

    Source: v7 62/64; v9 49/51.
    """
    refused = _no_store(state, op.vm)
    found: list[Outcome] = []
    if refused:
        found.append(Outcome(state, refused, _why(state, op.vm), also=_SET))
    if op.length > FW_BLOB_MAX_SIZE:
        found.append(Outcome(state, -EINVAL, c.INSTANCE_IOCTLS, c.INSTANCE_IOCTLS))
    if found:
        return tuple(found)
    if op.length == 0:
        return Outcome(with_vm(state, op.vm, instance=None), 0, c.INSTANCE_IOCTLS)
    if env.kmalloc or env.kzalloc:
        return Outcome(state, -ENOMEM, c.INSTANCE_IOCTLS, c.INSTANCE_IOCTLS)
    if env.copy_from_user:
        return Outcome(state, -EFAULT, c.INSTANCE_IOCTLS, c.INSTANCE_IOCTLS)
    return Outcome(with_vm(state, op.vm, instance=Blob(op.blob, op.length)), 0, c.INSTANCE_IOCTLS)


_SET = (c.INSTANCE_IOCTLS,)


def _no_store(state: State, number: int) -> int:
    vm = state.vms[number]
    if vm.kind != SNP or vm.life == "mirror":
        return -ENOTTY
    return 0 if vm.life in ("launched", "running") else -EINVAL


def _why(state: State, number: int) -> Clause:
    """What a VM breaks that has a store though it should have none."""
    return c.DECOMMISSION if state.vms[number].life in ("dropped", "stuck") else c.INSTANCE_IOCTLS


def get_instance_certs(state: State, op: GetInstanceCerts, env: Answers) -> Outcomes:
    """Result, pages of the length stored for the caller, and what was copied.

    A length that an implementation keeps rounded up to pages is as good as the exact one.
    """
    refused = _no_store(state, op.vm)
    if refused:
        return Outcome(state, (refused, 0, None), _why(state, op.vm))
    blob = state.vms[op.vm].instance
    if blob is None:
        return Outcome(state, (-ENOENT, 0, None), c.INSTANCE_IOCTLS)
    return _copied_out(state, blob, op.length, env, c.INSTANCE_IOCTLS, -EINVAL, also=(c.NO_STALE_BLOB,))


def _copied_out(
    state: State, blob: Blob, length: int, env: Answers, clause: Clause, *small: int, also: tuple[Clause, ...] = ()
) -> Outcomes:
    pages = -(-blob.length // PAGE_SIZE)
    too_small = tuple(Outcome(state, (errno, pages, None), clause) for errno in small)
    copied = Outcome(state, (0, pages, blob), clause, None, also)
    if env.copy_to_user:
        copied = Outcome(state, (-EFAULT, pages, None), clause)
    if length < blob.length:
        return too_small
    return copied if length >= pages * PAGE_SIZE else (copied, *too_small)


def host_set_ext_config(state: State, op: HostSetExtConfig, env: Answers) -> Outcomes:
    """Install, replace or remove the host's certificates, with the TCB they belong to.

    Which of two wrong arguments is found first is left open.

    Source: ccp API of v7 32/64.
    """
    found: list[Outcome] = []
    if not op.writable:
        found.append(Outcome(state, -EPERM, c.HOST_IOCTLS))
    if op.blob and (op.length == 0 or op.length % PAGE_SIZE):
        found.append(Outcome(state, -EINVAL, c.HOST_IOCTLS))
    if found:
        return tuple(found)
    if env.kmalloc or env.kzalloc:
        return Outcome(state, -ENOMEM, c.HOST_IOCTLS)
    if env.copy_from_user:
        return Outcome(state, -EFAULT, c.HOST_IOCTLS)
    if op.tcb and (env.snp_config or state.dead):
        return Outcome(state, ERRNO, c.HOST_IOCTLS)
    return Outcome(replace(state, host_certs=Blob(op.blob, op.length) if op.blob else None), 0, c.HOST_IOCTLS)


def host_get_ext_config(state: State, op: HostGetExtConfig, env: Answers) -> Outcomes:
    """As get_instance_certs; without certificates the length is 0."""
    if state.host_certs is None:
        return tuple(Outcome(state, (errno, 0, None), c.HOST_CERTS_DROPPED) for errno in (0, -ENOENT))
    return _copied_out(state, state.host_certs, op.length, env, c.HOST_IOCTLS, -ENOSR, -EIO)
