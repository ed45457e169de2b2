"""The world of snp_guest_request: its cryptography, its firmware, its candidates and its zoo."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

import conformance.environment.snp_guest_request as environment
from conformance.candidates.builtin.snp_guest_request import CANDIDATES
from conformance.candidates.builtin.snp_guest_request.as_posted import AsPosted
from conformance.candidates.builtin.snp_guest_request.guest import GuestDriver
from conformance.candidates.builtin.snp_guest_request.inplace import InPlace
from conformance.candidates.builtin.snp_guest_request.stub import Stub
from conformance.candidates.builtin.snp_guest_request.throttled import Throttled
from conformance.candidates.builtin.snp_guest_request.upstream import Sev, Svm, Upstream, psp_pa
from conformance.candidates.defect import Defect
from conformance.candidates.defects.snp_guest_request import DEFECTS
from conformance.candidates.load import Candidate, load
from conformance.engines import campaign, explore
from conformance.engines.context import Context
from conformance.environment.snp_guest_request import checks
from conformance.environment.snp_guest_request.crypto import (
    REAL,
    STAND_IN,
    Suite,
    encode_signature,
    verify_with,
)
from conformance.environment.snp_guest_request.firmware import (
    LAST_COUNT,
    Firmware,
    request_page,
    request_payload,
    vmpck,
)
from conformance.environment.snp_guest_request.firmware import (
    Context as GuestContext,
)
from conformance.environment.snp_guest_request.memory import Page, blob_bytes
from conformance.environment.snp_guest_request.report import (
    GUIDS,
    LAUNCH,
    PLATFORM,
    SIGNED_SIZE,
    Header,
    certificate_table,
    chain,
    report_body,
    seal,
    signed_report,
    unseal,
)
from conformance.environment.snp_guest_request.verifier import REPORT_AT, chain_refused, report_refused
from conformance.lockstep import Report, run_trace
from conformance.model.snp_guest_request.messages import MESSAGES, firmware_status
from conformance.model.snp_guest_request.operations import (
    Boot,
    CloseFd,
    Config,
    Continue,
    Decommission,
    ExtGuestRequest,
    GetExtReport,
    GetReport,
    GuestRequest,
    HostSetExtConfig,
    Kexec,
    LaunchStart,
    MoveFrom,
    SetInstanceCerts,
    SevInit,
    VmCreate,
    VmDestroy,
)
from conformance.model.step import Fault, Parallel, Step
from conformance.specs import snp_guest_request as specs
from conformance.specs.snp_guest_request import constants as k
from conformance.specs.snp_guest_request.constants import HEADER_SIZE, PAGE_SIZE, REPORT_SIZE, SNP
from conformance.strength import kill
from conformance.subsystem import subsystem
from conformance.trace import Trace

S = subsystem("snp_guest_request")
SUITES = [REAL, STAND_IN]
DATA = bytes(range(64))


def steps(*ops: Any) -> tuple[Step, ...]:
    """Plain steps."""
    return tuple(op if isinstance(op, Step) else Step(op) for op in ops)


def run(factory: Any, *ops: Any, fast: bool = True, **config: Any) -> Report:
    """Judge these operations."""
    trace = Trace(S.name, factory.profile, Config(**config), steps(*ops))
    return run_trace(S, trace, factory, environment=environment.FAST if fast else None, record=True)


def blamed(report: Report) -> str:
    """Id of the clause that ended the trace."""
    assert report.failure is not None
    return report.failure.clause.id


# -- cryptography, against what this project did not write


@pytest.mark.parametrize(
    ("key", "iv", "aad", "plain", "sealed"),
    [
        (bytes(32), bytes(12), b"", b"", "530f8afbc74536b9a963b4f1c4cb738b"),
        (bytes(32), bytes(12), b"", bytes(16), "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"),
        (
            bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2),
            bytes.fromhex("cafebabefacedbaddecaf888"),
            bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2"),
            bytes.fromhex(
                "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
                "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
            ),
            (
                "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
                "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b"
            ),
        ),
    ],
    ids=["case 13", "case 14", "case 16"],
)
def test_cipher_gives_the_published_answers(key: bytes, iv: bytes, aad: bytes, plain: bytes, sealed: str) -> None:
    """AES-256-GCM, the test cases of McGrew and Viega."""
    assert REAL.encrypt(key, iv, aad, plain).hex() == sealed
    assert REAL.decrypt(key, iv, aad, bytes.fromhex(sealed)) == plain


def test_signature_of_rfc_6979_verifies() -> None:
    """P-384 with SHA-384, message "sample" of RFC 6979 A.2.6, brought into the layout of a report."""
    x = 0xEC3A4E415B4E19A4568618029F427FA5DA9A8BC4AE92E02E06AAE5286B300C64DEF8F0EA9055866064A254515480BC13
    y = 0x8015D9B72D7D57244EA8EF9AC0C621896708A59367F9DFB9F54CA84B3F1C9DB1288B231C3AE0D4FE7344FD2533264720
    r = 0x94EDBB92A5ECB8AAD4736E56C691916B3F88140666CE9FA73D64C4EA95AD133C81A648152E44ACF96E36DD1E80FABE46
    s = 0x99EF4AEB15F178CEA1FE40DB2603138F130E740A19624526203B6351D0A3A94FA329C145786E679E7B82C71A38628AC8
    key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP384R1()).public_key()
    signature = (r.to_bytes(72, "little") + s.to_bytes(72, "little")).ljust(512, b"\0")

    assert verify_with(key, b"sample", signature)
    assert not verify_with(key, b"simple", signature)


def test_signature_beyond_r_and_s_is_zero() -> None:
    """SNP-083: anything after R and S is refused, and so is another length."""
    private = ec.derive_private_key(7, ec.SECP384R1())
    signature = encode_signature(private.sign(b"m", ec.ECDSA(hashes.SHA384())))

    assert verify_with(private.public_key(), b"m", signature)
    assert not verify_with(private.public_key(), b"m", signature[:-1] + b"\1")
    assert not verify_with(private.public_key(), b"m", signature[:-1])


@pytest.mark.parametrize("suite", SUITES, ids=["real", "stand-in"])
def test_suites_are_sensitive_to_every_input(suite: Suite) -> None:
    """Key, IV, header, payload and tag: a change of any is found."""
    key, iv, aad, plain = bytes(range(32)), bytes(12), b"header", bytes(range(200))
    sealed = suite.encrypt(key, iv, aad, plain)

    assert suite.decrypt(key, iv, aad, sealed) == plain
    assert suite.decrypt(bytes(32), iv, aad, sealed) is None
    assert suite.decrypt(key, b"\1" + iv[1:], aad, sealed) is None
    assert suite.decrypt(key, iv, b"Header", sealed) is None
    for at in (0, 100, 199, 200, 215):
        broken = bytearray(sealed)
        broken[at] ^= 1
        assert suite.decrypt(key, iv, aad, bytes(broken)) is None, at
    assert plain not in sealed


# -- layouts, against the published tables


def test_header_lies_at_the_published_offsets() -> None:
    """The message header of 96 bytes."""
    raw = Header(0x1122334455667788, 5, 0x60, 3, bytes(range(1, 17))).encode()
    table = {0x00: bytes(range(1, 17)), 0x20: bytes.fromhex("8877665544332211"), 0x30: b"\1", 0x31: b"\1"}
    table |= {0x32: b"\x60\0", 0x34: b"\5", 0x35: b"\1", 0x36: b"\x60\0", 0x3C: b"\3"}

    assert len(raw) == HEADER_SIZE
    for offset, value in table.items():
        assert raw[offset : offset + len(value)] == value, hex(offset)
    assert not any(raw[0x10:0x20] + raw[0x28:0x30] + raw[0x38:0x3C] + raw[0x3D:])
    assert Header.decode(raw) == Header(0x1122334455667788, 5, 0x60, 3, bytes(range(1, 17)))


def test_report_lies_at_the_published_offsets() -> None:
    """The attestation report of 1184 bytes, version 2."""
    launch = replace(LAUNCH, family_id=b"F" * 16, image_id=b"I" * 16, host_data=b"H" * 32, guest_svn=9)
    raw = signed_report(REAL, report_body(PLATFORM, launch, DATA, 3, 0x1234))
    table: dict[int, bytes] = {
        0x000: struct.pack("<II", 2, 9),
        0x008: launch.policy.to_bytes(8, "little"),
        0x010: b"F" * 16,
        0x020: b"I" * 16,
        0x030: struct.pack("<II", 3, 1),
        0x038: PLATFORM.current_tcb.to_bytes(8, "little"),
        0x040: (3).to_bytes(8, "little"),
        0x048: bytes(8),
        0x050: DATA,
        0x090: launch.measurement,
        0x0C0: b"H" * 32,
        0x140: launch.report_id,
        0x160: b"\xff" * 32,
        0x180: struct.pack("<Q", 0x1234),
        0x188: bytes(24),
        0x1A0: PLATFORM.chip_id,
        0x1E0: PLATFORM.current_tcb.to_bytes(8, "little"),
        0x1E8: bytes((8, 55, 1, 0, 8, 55, 1, 0)),
        0x1F0: PLATFORM.current_tcb.to_bytes(8, "little"),
        0x208: bytes(152),
    }

    assert len(raw) == REPORT_SIZE == 1184
    for offset, value in table.items():
        assert raw[offset : offset + len(value)] == value, hex(offset)
    assert REAL.verify(raw[:0x2A0], raw[0x2A0:])


def test_certificate_table_is_read_by_its_guids() -> None:
    """GUIDs stand in the order of their text; entries end with zeros; offsets count from the table's start."""
    table = certificate_table([("VCEK", b"one"), ("ARK", b"three")])

    assert table[:16].hex() == "63da758de6644564adc5f4b93be8accd"
    assert struct.unpack_from("<II", table, 16) == (72, 3)
    assert struct.unpack_from("<II", table, 40) == (75, 5)
    assert table[48:72] == bytes(24)
    assert GuestDriver(None).parse_certs(table) == (0, ((GUIDS["VCEK"], b"one"), (GUIDS["ARK"], b"three")))


def test_every_bit_of_a_report_counts() -> None:
    """Each single-bit corruption of a genuine report is refused."""
    payload = struct.pack("<II24x", 0, REPORT_SIZE) + signed_report(
        REAL, report_body(PLATFORM, LAUNCH, DATA, 0, PLATFORM.current_tcb)
    )
    assert report_refused(REAL, payload, DATA) == ""

    covered = SIGNED_SIZE + 144
    for bit in range(8 * REPORT_SIZE):
        if bit >= 8 * covered and bit % 97:
            continue  # the zeros after R and S are compared in one piece
        broken = bytearray(payload)
        broken[REPORT_AT + bit // 8] ^= 1 << bit % 8
        assert report_refused(REAL, bytes(broken), DATA), bit


def test_public_verifier_accepts_our_report() -> None:
    """A verifier that others wrote accepts report and chain, and refuses them with one bit changed."""
    omne = pytest.importorskip("omne_attest", reason="the public verifier omne-attest is not installed")
    ours = chain()
    raw = signed_report(REAL, report_body(PLATFORM, LAUNCH, DATA, 0, PLATFORM.current_tcb))
    pin = hashlib.sha256(ours.ark).digest()
    policy = omne.Policy(measurement=LAUNCH.measurement, report_data=DATA, max_vmpl=0, reject_debug=True)

    report = omne.verify(raw, ours.vcek, ours.ask, ours.ark, pin, policy)

    assert report.measurement == LAUNCH.measurement
    for bit in range(0, 8 * (SIGNED_SIZE + 48), 37):
        broken = bytearray(raw)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(omne.Fail):
            omne.verify(bytes(broken), ours.vcek, ours.ask, ours.ark, pin, policy)


def test_our_verifier_accepts_a_real_chip() -> None:
    """A report and a chain of real hardware, which the public verifier ships."""
    vectors = pytest.importorskip("omne_attest", reason="the public verifier omne-attest is not installed").vectors
    real = type(chain())(vectors.ark(), vectors.ask(), vectors.vcek())
    raw = vectors.attestation()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the real VCEK has serial number 0
        assert chain_refused(raw, real) == ""
        assert chain_refused(bytes([raw[0] ^ 1]) + raw[1:], real) == "the report is not signed by the VCEK"


def test_chain_follows_from_its_root() -> None:
    """ARK, ASK and VCEK, and no other order of them."""
    ours = chain()
    raw = signed_report(REAL, report_body(PLATFORM, LAUNCH, DATA, 0, PLATFORM.current_tcb))

    assert chain_refused(raw, ours) == ""
    assert chain_refused(raw, replace(ours, ask=ours.ark)) != ""
    assert len(ours.table()) <= 2 * PAGE_SIZE


# -- firmware


@pytest.mark.parametrize("suite", SUITES, ids=["real", "stand-in"])
@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("count", [0, 4, LAST_COUNT - 2, LAST_COUNT])
def test_status_of_every_message(suite: Suite, name: str, count: int) -> None:
    """SNP-082: the simulator refuses what the model says, at its own layer of bytes; counters move on success only."""
    context = GuestContext(0, "running", [0, count, 0, 0])

    status, _ = Firmware(suite).guest_request(context, request_page(suite, name, 0, 1, count))

    assert status == firmware_status(MESSAGES[name], "running", count)
    assert context.counts == [0, count + (0 if status else 2), 0, 0]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("report", 0),
        ("report-reserved-payload", 0x16),
        ("report-key-sel-3", 0x27),
        ("report-vlek", 0x27),
        ("key", 0),
        ("key-unknown-field", 0x16),
        ("key-svn-too-high", 0x16),
        ("tsc", 0),
        ("cpuid", 0),
        ("cpuid-too-many", 0x16),
        ("import", 0x16),
        ("vmrk", 0x16),
    ],
)
def test_payloads_are_refused_inside_the_response(name: str, status: int) -> None:
    """SNP-081: the command succeeds, and the encrypted payload says what is wrong."""
    context = GuestContext(0, "running")

    told, message = Firmware(REAL).guest_request(context, request_page(REAL, name, 0, 0, 0))
    payload = unseal(REAL, vmpck(0, 0), message)

    assert told == 0
    assert payload is not None
    assert int.from_bytes(payload[:4], "little") == status
    assert Header.decode(message).type == request_payload(name, 0)[0] + 1


@pytest.mark.parametrize("state", ["init", "launch"])
def test_guest_must_run(state: str) -> None:
    """Guest state comes before the header."""
    assert Firmware(REAL).guest_request(GuestContext(0, state), bytes(PAGE_SIZE))[0] == k.INVALID_GUEST_STATE


def test_old_firmware_has_another_status_for_a_bad_tag() -> None:
    """Milan answers INVALID_PARAM."""
    page = request_page(REAL, "bad-tag", 0, 0, 0)

    assert Firmware(REAL, milan=True).guest_request(GuestContext(0, "running"), page)[0] == k.INVALID_PARAM


def test_derived_keys_depend_on_what_is_selected() -> None:
    """Deterministic, and sensitive to each selected field and to nothing else."""
    firmware, context = Firmware(REAL), GuestContext(0, "running")

    def key(fields: int, launch: Any = LAUNCH) -> bytes:
        context.launch = launch
        return firmware.derived_key(context, struct.pack("<IIQIIQ", 0, 0, fields, 0, 0, 0), 0)[0x20:]

    other = replace(LAUNCH, measurement=b"m" * 48)
    assert key(0) == key(0) == key(0, other)
    assert key(1 << 3) != key(1 << 3, other)
    assert len({key(1 << bit) for bit in range(6)}) == 6


def test_message_beyond_its_page_is_refused() -> None:
    """Header and payload must lie within the page of the request."""
    page = request_page(REAL, "report", 0, 0, 0)

    assert Firmware(REAL).guest_request(GuestContext(0, "running"), page, PAGE_SIZE - 64)[0] == k.INVALID_PARAM


class WrongHeaders(Firmware):
    """A firmware whose responses have the wrong type."""

    def guest_request(self, context: GuestContext, page: bytes, offset: int = 0) -> tuple[int, bytes]:
        status, message = super().guest_request(context, page, offset)
        header = Header.decode(message)
        payload = unseal(self.suite, vmpck(context.guest, header.vmpck), message) or b""
        return status, seal(self.suite, vmpck(context.guest, header.vmpck), replace(header, type=9), payload)


class WrongSignatures(Firmware):
    """A firmware that signs something else."""

    def report(self, context: GuestContext, payload: bytes, key: int) -> bytes:
        answer = super().report(context, payload, key)
        return answer[:-1] + b"\1"


@pytest.mark.parametrize(("wrong", "clause"), [(WrongHeaders, "SNP-081"), (WrongSignatures, "SNP-083")])
def test_simulator_is_held_to_its_own_clauses(wrong: Callable[..., Firmware], clause: str) -> None:
    """A wrong firmware shows, whoever stands above it."""

    def world(config: Config, profile: Any) -> environment.World:
        made = environment.World(config, profile, STAND_IN)
        made.firmware = wrong(STAND_IN)
        return made

    report = run_trace(S, Trace(S.name, "upstream", Config(), steps(GuestRequest())), Upstream, environment=world)

    assert blamed(report) == clause


# -- correct candidates


@pytest.mark.parametrize("name", ["upstream", "stub", "inplace", "posted-errors", "throttled", "guest"])
def test_correct_candidates_survive_a_campaign(name: str) -> None:
    """Random walks, all profiles: no clause is broken, no SHOULD either."""
    candidate = load(f"builtin:{name}", S)
    context = Context(S, candidate, candidate.profile, seed=11, steps=4_000)

    campaign.run(context)

    assert [failure.signature for failure in context.failures] == []
    assert [warning.signature for warning in context.warnings] == []


@pytest.mark.parametrize("name", ["upstream", "guest"])
def test_scopes_have_their_pinned_counts(name: str) -> None:
    """The correct candidates reach exactly the states that the model has, and break nothing."""
    candidate = load(f"builtin:{name}", S)
    context = Context(S, candidate, candidate.profile, steps=0)

    explore.run(context)

    assert not context.failures
    assert not context.warnings
    found = 0
    for scope, pinned in S.scopes.items():
        if pinned.states is not None and f"{scope}: states" in context.notes:
            assert context.notes[f"{scope}: states"] == pinned.states, scope
            assert context.notes[f"{scope}: transitions"] == pinned.transitions, scope
            found += 1
    assert found == (18 if name == "upstream" else 5)


@pytest.mark.parametrize("name", ["upstream", "stub", "inplace", "posted-errors", "throttled", "guest"])
def test_every_binding_clause_is_exercised(name: str) -> None:
    """What the gate explores and walks is enough for every MUST of the profile."""
    candidate = load(f"builtin:{name}", S)
    context = Context(S, candidate, candidate.profile, seed=0, steps=8_000)
    explore.run(context)
    campaign.run(context)

    missing = [
        clause.id
        for clause in S.clauses
        if clause.level.is_binding
        and clause.applies(candidate.profile, candidate.capabilities)
        and not context.tally.clauses.get(clause)
    ]
    assert missing == []


@pytest.mark.parametrize("fast", [False, True], ids=["real", "stand-in"])
def test_real_and_stand_in_agree(fast: bool) -> None:
    """The same trace has the same answers with either cipher."""
    ops = (
        GuestRequest(),
        GuestRequest(message="key"),
        ExtGuestRequest(message="bad-tag"),
        GuestRequest(message="replay"),
    )

    report = run(Upstream, *ops, fast=fast)

    assert report.failure is None
    assert [step.result[2] for step in report.steps] == [0, 0, 0xB, 0x1D]


@pytest.mark.parametrize("fast", [False, True], ids=["real", "stand-in"])
def test_closed_loop(fast: bool) -> None:
    """Guest driver, hypervisor, firmware and verifier: reports, keys, certificates, too small, BUSY."""
    ops = (
        GetReport(),
        GetExtReport(),
        GetExtReport((), 4096),
        GetReport(("busy",)),
        GetExtReport(("too-small",)),
        Kexec(0),
        GetReport(),
        GetReport(("corrupt",)),
        GetReport(),
    )

    report = run(GuestDriver, *ops, fast=fast, side="guest", host="hypervisor")

    assert report.failure is None
    assert [step.result[0] for step in report.steps if isinstance(step.result, tuple)] == [0, 0, -5, 0, -5, 0, -74, -25]


class PerVcpuBuffers(Upstream):
    """Bounce pages and a lock per vCPU instead of per VM."""

    def __init__(self, port: Any) -> None:
        super().__init__(port)
        self.own: dict[int, Sev] = {}

    def guest_req_init(self, sev: Sev) -> int:
        return 0

    def vcpu_create(self, vcpu: int, vm: int) -> int:
        super().vcpu_create(vcpu, vm)
        if self.sevs[vm].kind == SNP:
            own = self.own[vcpu] = Sev(vm, SNP)
            own.lock = f"vcpu{vcpu}.guest_req_mutex"
            super().guest_req_init(own)
        return 0

    def vm_destroy(self, vm: int) -> int:
        for vcpu in [v for v, own in self.own.items() if own.vm == vm]:
            super().guest_req_cleanup(self.own.pop(vcpu))
        return super().vm_destroy(vm)

    def guest_request(self, vcpu: int, svm: Svm) -> int:
        return self._as_own(vcpu, svm, super().guest_request)

    def ext_guest_request(self, vcpu: int, svm: Svm) -> int:
        return self._as_own(vcpu, svm, super().ext_guest_request)

    def _as_own(self, vcpu: int, svm: Svm, work: Callable[[int, Svm], int]) -> int:
        whole, own = svm.sev, self.own[vcpu]
        own.gctx, own.fd, own.certs_enabled = whole.gctx, whole.fd, whole.certs_enabled
        svm.sev = own
        ret = work(vcpu, svm)
        svm.sev = whole
        return ret


class SvsmLikeErrors(Upstream):
    """Looks at the fd and the context before it touches anything, and zeroes a whole page for the table."""

    def supply_certs(self, svm: Svm) -> int:
        if not svm.regs[k.GHCB_RBX]:
            return 0
        return -5 if self.port.clear_guest(svm.sev.vm, svm.regs[k.GHCB_RAX], PAGE_SIZE) else 0

    def copy_request(self, sev: Sev, gpa: int) -> int:
        if not sev.gctx:
            return -22
        return super().copy_request(sev, gpa)


class MergedKvm(Upstream):
    """KVM as merged: uninterruptible locks, the type read apart from the page, old responses copied out."""

    def ext_guest_request(self, vcpu: int, svm: Svm) -> int:
        port, sev = self.port, svm.sev
        scratch = port.kzalloc(8)
        if not scratch:
            return -12
        failed = port.read_guest(sev.vm, svm.info1 + k.MSG_TYPE, scratch, 1)
        kind = port.load(scratch, 1)
        port.kfree(scratch)
        if failed:
            return -5
        if kind == k.REPORT_REQ:
            reason = self.validate_data(svm)
            if reason:
                return self.malformed(vcpu, reason)
            if self.asks_userspace(sev):
                svm.req, svm.resp = svm.info1, svm.info2
                port.run_exit(vcpu, k.EXIT_SNP_REQ_CERTS, svm.regs[k.GHCB_RAX], svm.regs[k.GHCB_RBX], 0)
                return k.EXIT
            if self.supply_certs(svm):
                return -5
        return self.guest_request(vcpu, svm)

    def forward(self, sev: Sev, resp_gpa: int) -> tuple[int, int]:
        if not sev.gctx:
            return -22, 0
        ret, status = self.port.snp_guest_request(
            sev.fd, psp_pa(sev.gctx), psp_pa(sev.req_buf), psp_pa(sev.resp_buf), 0
        )
        if ret and not status:
            return int(ret), 0
        return self.copy_response(sev, resp_gpa), int(status)

    def guest_request(self, vcpu: int, svm: Svm) -> int:
        self.port.mutex_lock(svm.sev.lock)
        ret = self.copy_request(svm.sev, svm.info1)
        ret, info2 = (ret, 0) if ret else self.forward(svm.sev, svm.info2)
        self.port.mutex_unlock(svm.sev.lock)
        return ret or self.complete(vcpu, 0, info2)


@pytest.mark.parametrize(
    ("factory", "tolerated"),
    [(PerVcpuBuffers, set()), (SvsmLikeErrors, set()), (MergedKvm, {"SNP-023", "SNP-024", "SNP-078"})],
)
def test_other_correct_designs_are_not_accused(factory: type[Upstream], tolerated: set[str]) -> None:
    """Other calls in another order, where the clauses allow it; what is only a SHOULD is only a warning."""
    candidate = Candidate("test", factory, factory.profile, factory.capabilities)
    context = Context(S, candidate, factory.profile, seed=5, steps=4_000)

    explore.run(context)
    campaign.run(context)

    assert [failure.signature for failure in context.failures] == []
    assert {warning.clause.id for warning in context.warnings} == tolerated


# -- what the world finds


def test_uninitialised_status_is_recognised() -> None:
    """SNP-047: half of a 64-bit variable is enough."""
    assert environment.host.is_tainted(0xAAAAAAAA00000016)
    assert environment.host.is_tainted(0x00000000AAAAAAAA)
    assert not environment.host.is_tainted(0xFFFFFFFF00000000)


def test_two_vcpus_get_their_own_responses() -> None:
    """SNP-065: every schedule of one switch."""
    for point in range(50):
        both = Parallel(Step(GuestRequest(0)), Step(GuestRequest(1)), (point,))
        assert run(Upstream, both, vcpus=2).failure is None, point


def test_page_removed_in_flight_stays_pinned() -> None:
    """SNP-038: in place, the response page is firmware's until the request ends, memslot or not."""
    from conformance.model.snp_guest_request.operations import RemoveSlot

    for point in range(40):
        report = run(InPlace, Step(GuestRequest(), during=((point, Step(RemoveSlot(0, "P0"))),)))
        assert report.failure is None, point


def test_leak_is_found_when_the_vm_goes() -> None:
    """SNP-037: a bounce page that nobody frees."""

    class Forgets(Upstream):
        def guest_req_cleanup(self, sev: Sev) -> None:
            self.free_firmware_page(sev.resp_buf)

    assert blamed(run(Forgets, VmDestroy(0))) == "SNP-037"


def test_buffer_freed_without_reclaim_is_found() -> None:
    """SNP-035."""

    class Hasty(Upstream):
        def free_firmware_page(self, address: int) -> None:
            self.port.free_page(address)

    assert blamed(run(Hasty, VmDestroy(0))) == "SNP-035"


def test_ghcb_fetched_twice_is_found() -> None:
    """SNP-012: also across a certificate exit."""

    class Refetches(Upstream):
        def vcpu_continue(self, vcpu: int) -> int:
            self.svms[vcpu].regs[k.GHCB_RAX] = self.port.ghcb_read(vcpu, k.GHCB_RAX, 8)
            return super().vcpu_continue(vcpu)

    assert run(Refetches, ExtGuestRequest(), Continue(), certs=True).failure is None
    assert blamed(run(Refetches, ExtGuestRequest(), Continue(race="rax"), certs=True)) == "SNP-012"


def test_ghcb_changed_behind_every_field_is_found() -> None:
    """SNP-012: no input is looked at twice."""

    class LooksAgain(Upstream):
        def validate(self, svm: Svm, usage: int) -> int:
            reason = super().validate(svm, usage)
            self.port.ghcb_read(0, self.offset, 1)
            return reason

        offset = 0

    for race, offset in {"code": k.GHCB_SW_EXITCODE, "valid": k.GHCB_VALID_BITMAP + 7, "usage": 0xFFC}.items():
        LooksAgain.offset = offset
        assert run(LooksAgain, GuestRequest()).failure is None
        assert blamed(run(LooksAgain, GuestRequest(race=race))) == "SNP-012", race


def test_ghcb_may_be_read_in_pieces() -> None:
    """Two halves of a field that the guest changes in between are no field read twice."""

    class Halves(Upstream):
        def if_valid(self, vcpu: int, svm: Svm, offset: int) -> int:
            low, high = (self.port.ghcb_read(vcpu, offset + half, 4) for half in (0, 4))
            return (high << 32 | low) if self.is_valid(svm, offset) else 0

    assert run(Halves, *(ExtGuestRequest(race=race) for race in ("rax", "rbx", "info1", "code"))).failure is None


def test_ghcb_that_stays_mapped_is_found() -> None:
    """SNP-036: the mapping is given back before the guest is entered."""

    class Keeps(Upstream):
        def ghcb_leave(self, vcpu: int) -> int:
            self.svms[vcpu].mapped = False
            return 0

    assert blamed(run(Keeps, GuestRequest())) == "SNP-036"


def test_request_read_in_two_pieces_is_found() -> None:
    """SNP-016: the page is taken as of one instant."""

    class Pieces(Upstream):
        def copy_request(self, sev: Sev, gpa: int) -> int:
            read = self.port.read_guest
            return read(sev.vm, gpa, sev.req_buf, 64) or read(sev.vm, gpa + 64, sev.req_buf + 64, k.PAGE_SIZE - 64)

    assert run(Pieces, GuestRequest()).failure is None
    assert blamed(run(Pieces, GuestRequest(race="type"))) == "SNP-016"


def test_page_leaked_for_no_reason_is_found() -> None:
    """SNP-037: firmware was never asked for it."""

    class Leaks(Upstream):
        def free_firmware_page(self, address: int) -> None:
            self.port.leak_page(address >> 12)

    assert blamed(run(Leaks, VmDestroy(0))) == "SNP-037"


def test_asid_of_somebody_else_is_refused() -> None:
    """SNP-070: firmware activates a guest only with the ASID that its VM was given."""

    class OtherAsid(Upstream):
        def launch_start(self, vm: int, fd: int, policy: int) -> int:
            sev = self.sevs[vm]
            asid, sev.asid = sev.asid, sev.asid + 1
            ret = super().launch_start(vm, fd, policy)
            sev.asid = asid
            return ret

    assert blamed(run(OtherAsid, VmCreate(0), SevInit(0), LaunchStart(0), started=False)) == "SNP-070"


def test_moved_vm_may_take_its_lock_along() -> None:
    """SNP-067, SNP-077: the source can issue no more requests, so the lock is the destination's alone."""

    class TakesLock(InPlace):
        def vm_move_from(self, dst: int, src: int) -> int:
            ret = super().vm_move_from(dst, src)
            if not ret:
                self.sevs[dst].lock = self.sevs[src].lock
            return ret

        def adopt_lock(self, target: Sev) -> None:
            pass

    steps = (GuestRequest(0), MoveFrom(), GuestRequest(2), VmDestroy(0), GuestRequest(2), VmDestroy(1), Boot(0))
    assert run(TakesLock, *steps).failure is None


def test_page_that_a_request_leaves_alone_still_holds_what_it_held() -> None:
    """It was firmware's for a while, and other certificates with the same beginning are installed since."""
    report = run(
        InPlace,
        CloseFd(0),
        SetInstanceCerts(0, "B", 4096),
        ExtGuestRequest(),
        SetInstanceCerts(0, "B", 1),
        GuestRequest(resp="D"),
    )

    assert report.failure is None


def test_registers_under_a_sibling_s_answer_are_nobody_s() -> None:
    """SNP-026: the guest has an answer put over the GHCB of a vCPU that waits for userspace."""

    class LeavesRegisters(Upstream):
        def ghcb_leave(self, vcpu: int) -> int:
            self.svms[vcpu].regs = {}
            return super().ghcb_leave(vcpu)

    steps = (ExtGuestRequest(1), GuestRequest(0, resp="G'"), Continue(1))

    assert run(LeavesRegisters, *steps, vcpus=2, certs=True).failure is None


def test_rate_may_be_asked_for_once_more_after_userspace() -> None:
    """SNP-045: a request that continues is told BUSY like any other."""
    steps = (ExtGuestRequest(), Continue(ret=28), ExtGuestRequest(), Continue())

    report = run(Throttled, *steps, certs=True, throttle=True)

    assert report.failure is None
    assert report.warnings == []


def test_certificates_being_set_again_belong_to_either_tcb() -> None:
    """SNP-060: the request runs between the exchange of the blob and the end of the call that made it."""
    both = Parallel(Step(ExtGuestRequest()), Step(HostSetExtConfig("I", 4096, 2)), (0, 10))

    report = run(InPlace, HostSetExtConfig("I", 4096, 1), Step(both))

    assert report.failure is None
    assert report.warnings == []


def test_decommissioned_asid_is_kept_back() -> None:
    """SNP-073: an ASID whose context firmware kept is never used again."""

    class Frees(Upstream):
        def decommission(self, vm: int) -> int:
            asid = self.sevs[vm].asid
            ret = super().decommission(vm)
            self.sevs[vm].asid = asid
            return ret

    fault = Step(VmDestroy(0), (Fault("snp_decommission", 0x10),))
    assert run(Upstream, fault).failure is None
    assert blamed(run(Frees, fault)) == "SNP-073"


def test_decommissioning_may_be_tried_again() -> None:
    """SNP-073 asks for a leak where firmware refuses, not where it changes its mind."""

    class Retries(Upstream):
        def decommission(self, vm: int) -> int:
            sev = self.sevs[vm]
            gctx = sev.gctx
            if gctx and self.port.snp_decommission(k.NO_FD, psp_pa(gctx), 0)[0]:
                return -5
            sev.gctx = 0
            if gctx:
                self.free_firmware_page(gctx)
            return 0

    report = run(Retries, Step(Decommission(0), (Fault("snp_decommission", 0x10),)), VmDestroy(0))

    assert report.failure is None


def test_moved_vm_is_usable() -> None:
    """SNP-075: the destination takes requests with the source's keys, the source no more."""
    report = run(InPlace, GuestRequest(), MoveFrom(), GuestRequest(2), GuestRequest(0), VmDestroy(0), VmDestroy(1))

    assert report.failure is None
    assert report.steps[2].result == (1, 0, 0, None)


def test_moved_vm_may_be_kept_by_firmware() -> None:
    """SNP-073: the ASID leaked with the destination is not missed when the source goes."""
    kept = Step(VmDestroy(1), (Fault("snp_decommission", -16),))

    assert run(InPlace, MoveFrom(), kept, VmDestroy(0)).failure is None
    export = GuestRequest(2, "export")
    assert run(InPlace, MoveFrom(), VmDestroy(0), export, Boot(0), VmDestroy(1), VmDestroy(0)).failure is None


def test_second_life_of_a_vm() -> None:
    """Everything is given back: the same number can be used again."""
    assert run(Upstream, GuestRequest(), VmDestroy(0), Boot(0), GuestRequest(), Decommission(0)).failure is None


def test_page_knows_a_blob_by_its_bytes() -> None:
    """Every 16 bytes of a blob say whose and which they are."""
    assert blob_bytes("A", 32) == b"A000200000000000A000200000000010"
    assert blob_bytes("A", 4097)[4096:] == b"a"
    assert Page(1, bytearray(PAGE_SIZE), 0, True).is_guest is False


def test_checks_find_a_command_after_busy() -> None:
    """SNP-043: a refused message leaves no trace but the command itself."""

    class AsksFirst(Upstream):
        def vcpu_continue(self, vcpu: int) -> int:
            svm = self.svms[vcpu]
            self.port.mutex_lock_killable(svm.sev.lock)
            self.copy_request(svm.sev, svm.req)
            self.issue(svm.sev)
            self.port.mutex_unlock(svm.sev.lock)
            return super().vcpu_continue(vcpu)

    ops = (ExtGuestRequest(message="bad-tag"), Continue(ret=k.EAGAIN))
    assert blamed(run(AsksFirst, *ops, certs=True)) in {"SNP-043", "SNP-044"}
    assert checks.CHECKS.keys() >= {GuestRequest, ExtGuestRequest, Continue}


def test_closed_fd_is_ignored_by_nobody() -> None:
    """SNP-068, in every design."""
    for factory in (Upstream, Stub, InPlace):
        report = run(factory, CloseFd(), GuestRequest(), ExtGuestRequest())
        assert [step.result for step in report.steps] == [0, -9, -9]


def test_one_blob_is_seen_whole() -> None:
    """SNP-056: a request beside SET gets the old blob or the new, at every point."""
    for point in range(0, 60, 3):
        both = Parallel(Step(ExtGuestRequest()), Step(SetInstanceCerts(0, "B", 8192)), (point,))
        assert run(InPlace, SetInstanceCerts(0, "A", 8192), both).failure is None, point


def test_tcb_and_certificates_change_together() -> None:
    """SNP-060: the report is of the TCB whose certificates came with it."""
    for point in range(0, 60, 3):
        both = Parallel(Step(HostSetExtConfig("I", 4096, 2)), Step(ExtGuestRequest()), (point,))
        assert run(InPlace, HostSetExtConfig("H", 4096, 1), both).failure is None, point


# -- the posted design and the zoo


def test_as_posted_fails_in_the_ways_the_thread_discussed() -> None:
    """Uninitialised status, fd ignored, equal pages, seized pages, cleanup, certificates too late."""
    candidate = load("builtin:as-posted", S)
    context = Context(S, candidate, candidate.profile, steps=0)

    explore.run(context)
    found = {failure.clause.id for failure in context.failures}

    assert AsPosted.profile == "as-posted"
    status = {"SNP-007", "SNP-019", "SNP-025", "SNP-042", "SNP-047", "SNP-048", "SNP-068"}
    pages = {"SNP-029", "SNP-032", "SNP-034", "SNP-036", "SNP-051", "SNP-052"}
    stores = {"SNP-055", "SNP-058", "SNP-059", "SNP-070", "SNP-071", "SNP-072"}
    assert found >= status | pages | stores
    assert all(len(f.trace.steps) <= 5 for f in context.failures if f.trace is not None)


@pytest.mark.parametrize("defect", [d for d in DEFECTS if d.candidate], ids=lambda d: d.id)
def test_defect_is_killed_by_its_clause(defect: Defect) -> None:
    """Found, and for a reason that the facts name or the note explains."""
    outcome = kill(S, defect, load(f"builtin:{defect.id}", S))

    assert outcome.is_killed
    assert outcome.failure is not None
    assert outcome.failure.clause.id in defect.clauses, outcome.failure.signature


def test_minimiser_stays_in_worlds_the_candidate_can_live_in() -> None:
    """A guest's driver is never put under a VMM, though that world is the plainest."""
    defect = next(d for d in DEFECTS if d.id == "SNP-G01")
    outcome = kill(S, defect, load("builtin:SNP-G01", S))

    assert outcome.failure is not None
    assert outcome.failure.trace is not None
    assert outcome.failure.trace.config.side == "guest"


def test_zoo_is_complete() -> None:
    """Every defect of the facts is there, with a candidate or a reason why not."""
    ids = [f"SNP-D{n:02}" for n in range(1, 38)] + [f"SNP-U{n:02}" for n in range(1, 15)]
    ids += [f"SNP-G{n:02}" for n in range(1, 7)] + [f"SNP-V{n:02}" for n in range(1, 11)]

    assert [defect.id for defect in DEFECTS] == ids
    assert all((defect.candidate is None) == bool(defect.why_not) for defect in DEFECTS)
    known = {clause.id for clause in S.clauses}
    assert all(set(defect.clauses) <= known for defect in DEFECTS)


def test_candidates_declare_what_they_are() -> None:
    """Profiles and capabilities of the shipped candidates exist."""
    for candidate in CANDIDATES.values():
        assert candidate.profile in specs.PROFILES
        assert candidate.capabilities <= specs.CAPABILITIES.keys()


def test_missing_package_is_told_in_one_sentence() -> None:
    """Without `cryptography` loading says what to install."""
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from conformance.subsystem import subsystem\n"
        "try: subsystem('snp_guest_request')\n"
        "except BaseException as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "cryptography" in done.stdout
    assert "Traceback" not in done.stderr
