"""Properties of snp_guest_request's encodings for CrossHair: asserts before the call are preconditions."""

from __future__ import annotations

import struct

from conformance.model import snp_guest_request as model
from conformance.model.snp_guest_request.messages import LAST_COUNT, MESSAGES, firmware_status
from conformance.model.snp_guest_request.operations import (
    Answers,
    Config,
    Continue,
    ExtGuestRequest,
    GuestRequest,
    SetInstanceCerts,
)
from conformance.model.step import Outcome, each
from conformance.specs import snp_guest_request as specs
from conformance.specs.snp_guest_request import constants as k

_NOTHING = Answers()
_UPSTREAM, _KERNEL = specs.PROFILES["upstream"], specs.PROFILES["kernel-certs"]


def _first(outcomes: object) -> Outcome:
    return each(outcomes)[0]  # type: ignore[arg-type]  # Outcomes


_ASKED = _first(model.step(model.initial(Config(certs=True), _UPSTREAM), ExtGuestRequest(), _NOTHING, _UPSTREAM)).state
_STORED = _first(model.step(model.initial(Config(), _KERNEL), SetInstanceCerts(0, "A", 8192), _NOTHING, _KERNEL)).state


def halves_are_never_both_set(ret: int, npages: int) -> None:
    """SNP-040: whatever userspace answers, SW_EXITINFO2 is firmware's or the hypervisor's."""
    assert 0 <= ret < 2**64
    assert 0 <= npages < 2**64

    result = _first(model.step(_ASKED, Continue(0, ret, npages), _NOTHING, _UPSTREAM)).result

    assert result == -k.EINVAL or not (result[2] >> 32 and result[2] & 0xFFFFFFFF)


def only_four_answers_resume(ret: int) -> None:
    """SNP-063: all 64 bits of ret count."""
    assert 0 <= ret < 2**64

    result = _first(model.step(_ASKED, Continue(0, ret, 1), _NOTHING, _UPSTREAM)).result

    assert (result == -k.EINVAL) == (ret not in (0, k.ENOSPC, k.EAGAIN, k.EIO))


def statuses_stay_in_the_low_half(status: int) -> None:
    """SNP-018: a status of 32 bits is handed on as it is."""
    assert 0 < status < 2**32

    state = model.initial(Config(), _UPSTREAM)
    result = _first(model.step(state, GuestRequest(), Answers(snp_guest_request=status), _UPSTREAM)).result

    assert result == (k.RESUME, 0, status, None)


def pages_are_compared_without_overflow(npages: int) -> None:
    """SNP-014: a blob of 2 pages fits every larger buffer."""
    assert 0 <= npages < 2**64

    result = _first(model.step(_STORED, ExtGuestRequest(npages=npages), _NOTHING, _KERNEL)).result

    assert (result == (k.RESUME, 0, k.TOO_SMALL_INFO2, 2)) == (npages < 2)


def counters_end_once(count: int) -> None:
    """SNP-082: the last count refuses every message, and no other one refuses a good message."""
    assert 0 <= count < 2**64

    status = firmware_status(MESSAGES["report"], "running", count)

    assert (status == k.AEAD_OFLOW) == (count == LAST_COUNT)


def valid_bits_lie_in_the_bitmap(offset: int) -> None:
    """A field's valid bit is one of the 128, for every field before the bitmap."""
    assert 0 <= offset < k.GHCB_VALID_BITMAP
    assert offset % 8 == 0

    bit = offset // 8

    assert 0 <= bit < 128


def header_keeps_its_fields(number: int, kind: int, size: int, vmpck: int) -> None:
    """The header's layout loses nothing: number at 0x20, type at 0x34, size at 0x36, VMPCK at 0x3C."""
    assert 0 <= number < 2**64
    assert 0 <= kind < 256
    assert 0 <= size < 2**16
    assert 0 <= vmpck < 256

    raw = struct.pack("<16s16xQ8xBBHBBH4xB35x", bytes(16), number, 1, 1, k.HEADER_SIZE, kind, 1, size, vmpck)

    assert len(raw) == k.HEADER_SIZE
    assert int.from_bytes(raw[k.MSG_SEQNO : k.MSG_SEQNO + 8], "little") == number
    assert raw[k.MSG_TYPE] == kind
    assert int.from_bytes(raw[k.MSG_SIZE : k.MSG_SIZE + 2], "little") == size
    assert raw[k.MSG_VMPCK] == vmpck


def entries_that_wrap_are_outside(offset: int, length: int, size: int) -> None:
    """SNP-093: bounds without wrapping; what wraps 2^32 would look as if it were inside."""
    assert 0 <= offset < 2**32
    assert 0 <= length < 2**32
    assert 0 <= size <= 0x4000

    inside = offset <= size and length <= size - offset

    assert inside == (offset + length <= size)
    assert not inside or (offset + length) % 2**32 == offset + length
