"""Kind G: callers of a guest's driver, and what they make of its answers."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from conformance.environment.snp_guest_request.certificate_tables import TABLE_BYTES
from conformance.environment.snp_guest_request.firmware import COMMITTED_TCB
from conformance.environment.snp_guest_request.report import GUIDS, LAUNCH
from conformance.environment.snp_guest_request.taint import is_tainted
from conformance.environment.snp_guest_request.untrusted_host import Exchange
from conformance.environment.snp_guest_request.verifier import report_refused
from conformance.model.snp_guest_request.operations import (
    Close,
    GetDerivedKey,
    GetExtReport,
    GetReport,
    Kexec,
    Open,
    ParseCerts,
)
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import BUSY_INFO2, TOO_SMALL_INFO2
from conformance.verdict import Crash, Violation

if TYPE_CHECKING:
    from conformance.environment.snp_guest_request.world import World


USER_BUFFER = 0x7F00_0000_0000
DATA = b"report data of the caller, 64 bytes,\0which nobody else may see.."
"""What the caller wants in the report, zero bytes and all; each operation puts its number in front."""
KEY_SVN = LAUNCH.guest_svn
KEY_TCB = COMMITTED_TCB
"""What callers ask a key for: the newest allowed."""


def open_(world: World, op: Open) -> int:
    """Load the driver."""
    return _opened(world, op)


def close(world: World, _op: Close) -> int:
    """Unload the driver; its pages are back or leaked."""
    result = world.enter_int(world.driver.close)
    world.shared.judge_back()
    world.mutexes.unload()
    return result


def kexec(world: World, op: Kexec) -> int:
    """A new driver on the same secrets page; the pages of the old one are gone with its kernel."""
    world.shared.regions.clear()
    world.mutexes.restart()
    world.driver = world.enter(world.factory, world.port)
    return _opened(world, op)


def _opened(world: World, op: Open | Kexec) -> int:
    """The driver's answer; where it does not start, it has no pages."""
    result = world.enter_int(world.driver.open, op.vmpck)
    if result:
        world.shared.judge_back()
        world.mutexes.unload()
    return result


def get_report(world: World, op: GetReport) -> object:
    """SNP_GET_REPORT."""
    data = _report_data(world, op)
    _plan(world, op, _report_request(op, data))
    return _told(world, op, data, world.enter(world.driver.get_report, data, op.vmpl))


def get_derived_key(world: World, op: GetDerivedKey) -> object:
    """SNP_GET_DERIVED_KEY."""
    _plan(world, op, _key_request(op))
    result = world.enter(world.driver.get_derived_key, op.fields, op.vmpl, KEY_SVN, KEY_TCB)
    return _told(world, op, b"", result)


def get_ext_report(world: World, op: GetExtReport) -> object:
    """SNP_GET_EXT_REPORT."""
    data = _report_data(world, op)
    _plan(world, op, _report_request(op, data))
    address = USER_BUFFER if op.buffer else 0
    return _told(world, op, data, world.enter(world.driver.get_ext_report, data, op.vmpl, op.certs_len, address))


def _told(world: World, op: Any, data: bytes, result: Any) -> object:
    """Result, exitinfo2 where it means something, what the answer and the certificates are, length needed."""
    exchange = world.host.end()
    world.shared.forget()
    shape = [int, int, bytes, bytes, int] if type(op) is GetExtReport else [int, int, bytes]
    if type(result) is not tuple or [type(value) for value in result] != shape:
        raise Crash(f"returned {world.text_of(result)}, expected {', '.join(kind.__name__ for kind in shape)}", "type")
    ret, info2, payload, *rest = result
    if is_tainted(info2) or (rest and is_tainted(rest[1])):
        raise Violation(c.STATUS_TO_CALLER, f"the caller is given exitinfo2 {info2:#x}, bits that nobody wrote")
    world.hold(c.STATUS_TO_CALLER)
    if ret:
        _judge_status(world, exchange, info2)
        return (ret, info2, None, None, rest[1] if rest and info2 == TOO_SMALL_INFO2 else 0)
    certs = None
    if rest:
        table = world.honest.table()
        certs = "certs" if rest[0][: len(table)] == table else "other certificates"
    return (ret, info2, _kind(world, op, data, payload), certs, rest[1] if rest else 0)


def _judge_status(world: World, exchange: Exchange, info2: int) -> None:
    """The caller of a request that was refused is told what the host answered (SNP-099)."""
    told1, told2 = exchange.last
    if told1 or told2 in (0, BUSY_INFO2):
        return
    passed_on = info2 == told2 or (exchange.small and info2 == TOO_SMALL_INFO2)
    world.require(c.STATUS_TO_CALLER, passed_on, f"the caller is given exitinfo2 {info2:#x}, the host said {told2:#x}")


def _kind(world: World, op: Any, data: bytes, payload: bytes) -> str:
    if type(op) is GetDerivedKey:
        key = world.honest.firmware.derived_key(world.honest.context, _key_request(op), 0)
        asked = payload == key or len(payload) != len(key)
        world.require(c.AS_ASKED, asked, "the key that comes back is derived from other fields than were asked for")
        return "key" if payload == key else "another key"
    why = report_refused(world.suite, payload, data, op.vmpl)
    world.require(c.SIGNATURE, "signature" not in why, why)
    world.require(c.AS_ASKED, "than was asked for" not in why, why)
    return "report" if not why else f"no report: {why}"


def parse_certs(world: World, op: ParseCerts) -> object:
    """Parse a table; the certificates by name."""
    data, known = TABLE_BYTES[op.table]
    result = world.enter(world.driver.parse_certs, data)
    if type(result) is not tuple or len(result) != 2 or type(result[0]) is not int or type(result[1]) is not tuple:
        raise Crash(f"parse_certs returned {world.text_of(result)}, expected (int, tuple)", "type")
    ret, entries = result
    names = []
    for i, entry in enumerate(entries):
        if type(entry) is not tuple or len(entry) != 2:
            raise Crash(f"parse_certs gave {world.text_of(entry)}, expected (guid, certificate)", "type")
        name, body = known[i] if i < len(known) else ("", b"")
        fits = entry == (GUIDS.get(name), body)
        names.append(name if fits else f"other bytes ({len(entry[1])})")
    return (ret, tuple(names))


def _plan(world: World, op: GetReport | GetDerivedKey | GetExtReport, request: bytes) -> None:
    """Note how the host will treat this operation's exits, and what of it the host must not see."""
    world.host.plan(list(op.host))
    world.shared.confide(request)


def _report_data(world: World, op: GetReport | GetExtReport) -> bytes:
    """The data that the caller wants in its report; no two want the same."""
    world.serial += 1
    word = int.from_bytes(DATA[8:16], "little") ^ op.data_word
    return world.serial.to_bytes(8, "little") + word.to_bytes(8, "little") + DATA[16:]


def _report_request(op: GetReport | GetExtReport, data: bytes) -> bytes:
    """MSG_REPORT_REQ in the clear."""
    return struct.pack("<64sII24x", data, op.vmpl, 0)


def _key_request(op: GetDerivedKey) -> bytes:
    """MSG_KEY_REQ in the clear."""
    return struct.pack("<IIQIIQ", 0, 0, op.fields, op.vmpl, KEY_SVN, KEY_TCB)
