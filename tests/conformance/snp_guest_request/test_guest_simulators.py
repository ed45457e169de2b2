"""A guest's kernel and its host, each simulator alone: they behave, and they say who broke what."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.environment.door import Environment, Frame
from conformance.environment.snp_guest_request.cipher import Cipher
from conformance.environment.snp_guest_request.clock import Clock
from conformance.environment.snp_guest_request.crypto import STAND_IN
from conformance.environment.snp_guest_request.honest_host import HonestHost
from conformance.environment.snp_guest_request.loop import Loop
from conformance.environment.snp_guest_request.messages import request_page
from conformance.environment.snp_guest_request.report import Header
from conformance.environment.snp_guest_request.secrets import SecretsPage
from conformance.environment.snp_guest_request.tasks import Task
from conformance.environment.snp_guest_request.untrusted_host import UntrustedHost
from conformance.environment.snp_guest_request.world import started_machine
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request import constants as k
from tests.conformance.snp_guest_request.machine import breaks, shared_pages


def test_the_secrets_page_has_keys_and_numbers() -> None:
    """A key of zeros is wiped."""
    secrets = SecretsPage(Environment(), (2, 0, 0, 2**32 + 4))

    assert secrets.read_secrets(k.SECRETS_SEQNO, 4) == b"\2\0\0\0"
    assert secrets.read_secrets(k.SECRETS_SEQNO + 12, 4) == b"\4\0\0\0"
    assert secrets.wiped == (False, False, False, False)
    secrets.write_secrets(k.SECRETS_VMPCK + 32, bytes(32))
    assert secrets.wiped == (False, True, False, False)


def test_time_passes_while_the_guest_sleeps() -> None:
    """Never backwards."""
    clock = Clock(Environment())
    clock.sleep(2)
    clock.sleep(-1)

    assert clock.now() == 2


def test_a_message_that_does_not_open_is_empty() -> None:
    """As the port has it."""
    shared = shared_pages()
    cipher = Cipher(shared.door, shared, STAND_IN)
    sealed = cipher.gcm_encrypt(bytes(32), bytes(12), b"header", b"a payload of some bytes")

    assert cipher.gcm_decrypt(bytes(32), bytes(12), b"header", sealed) == b"a payload of some bytes"
    assert cipher.gcm_decrypt(bytes(32), bytes(12), b"Header", sealed) == b""


def test_shared_pages_are_made_private_before_they_are_freed() -> None:
    """SNP-094."""
    shared = shared_pages()
    gpa = shared.alloc_pages(1)
    shared.shared_write(gpa, b"12345678")
    shared.set_decrypted(gpa)

    assert shared.shared_read(gpa, 8) == b"12345678"
    with breaks(c.SHARED_PAGES_BACK):
        shared.free_pages(gpa)
    with breaks(c.SHARED_PAGES_BACK):
        shared.judge_back()
    shared.set_encrypted(gpa)
    shared.free_pages(gpa)
    shared.judge_back()
    with breaks(c.ROBUST):
        shared.shared_read(gpa, 1)


@pytest.mark.parametrize("size", [96, 48, 8, 1])
@pytest.mark.parametrize("at", [0x60, 0, 0x123])
def test_the_host_sees_no_piece_of_a_message(size: int, at: int) -> None:
    """SNP-090: whole, by halves, by words or by bytes, wherever it is put; until the call has ended."""
    shared, message = shared_pages(), bytes(range(96))
    gpa = shared.alloc_pages(2)
    shared.shared_write(gpa, message)
    shared.shared_write(gpa, bytes(2 * k.PAGE_SIZE))
    shared.set_decrypted(gpa)
    shared.confide(message)

    with breaks(c.PRIVATE_ENCRYPTION):
        for start in range(0, 96, size):
            shared.shared_write(gpa + k.PAGE_SIZE + at + start, message[start : start + size])
    shared.forget()
    shared.shared_write(gpa, message)


def test_small_numbers_are_known_where_a_message_has_them() -> None:
    """A word of few bytes may stand anywhere else, as a number of the header does."""
    shared, message = shared_pages(), bytes(8) + (9).to_bytes(8, "little")
    gpa = shared.alloc_pages(2)
    shared.shared_write(gpa, bytes(2 * k.PAGE_SIZE))
    shared.set_decrypted(gpa)
    shared.confide(message)

    shared.shared_write(gpa + k.PAGE_SIZE + k.MSG_SEQNO, message[8:])
    with breaks(c.PRIVATE_ENCRYPTION):
        shared.shared_write(gpa + k.PAGE_SIZE + k.HEADER_SIZE + 8, message[8:])


def test_pages_with_a_message_in_the_clear_are_not_shared() -> None:
    """What a cipher has opened is as secret as what was asked."""
    shared = shared_pages()
    cipher = Cipher(shared.door, shared, STAND_IN)
    gpa = shared.alloc_pages(1)
    shared.shared_write(gpa + 8, cipher.gcm_decrypt(bytes(32), bytes(12), b"", cipher.gcm_encrypt(*SEALED)))

    with breaks(c.PRIVATE_ENCRYPTION):
        shared.set_decrypted(gpa)


SEALED = (bytes(32), bytes(12), b"", b"a derived key of 32 bytes, or so")


def test_a_response_is_read_once() -> None:
    """SNP-089: the host changes it after that."""
    shared = shared_pages()
    gpa = shared.alloc_pages(1)
    shared.shared_write(gpa, bytes(k.PAGE_SIZE))
    shared.window(gpa).changes_once_read()

    assert shared.shared_read(gpa, 96) == bytes(96)
    assert shared.shared_read(gpa + 96, 96) == bytes(96)
    with breaks(c.RESPONSE_CHECKED):
        shared.shared_read(gpa + 90, 8)


def test_shared_pages_are_used_under_a_lock_beside_another_call() -> None:
    """SNP-092: the pages that both use; each may have its own without a lock."""
    shared, other = shared_pages(), Frame()
    own, both = shared.alloc_pages(1), shared.alloc_pages(1)
    shared.tasks.running = {shared.door.frame: Task(None, 0, -1), other: Task(None, 0, -1)}
    shared.mutexes.mutex_init("a")
    shared.regions[both].users[0][other] = frozenset({"a"})

    shared.shared_write(own, b"\0")
    shared.mutexes.mutex_lock("a")
    shared.shared_write(both, b"\0")
    shared.mutexes.mutex_unlock("a")
    with breaks(c.ONE_LOCK):
        shared.shared_read(both, 1)


def guest_exit(host: UntrustedHost, message: bytes, treatment: str = "ok", *, code: int = k.GUEST_REQUEST) -> Any:
    """Leave a message in a fresh pair of shared pages, and exit; what the host says, and the answer."""
    request, response = host.shared.alloc_pages(1), host.shared.alloc_pages(1)
    for gpa in (request, response):
        host.shared.set_decrypted(gpa)
        host.shared.shared_write(gpa, bytes(k.PAGE_SIZE))
    host.shared.shared_write(request, message)
    host.plan([treatment])
    told = host.guest_exit(code, request, response, 0, 0)
    return told, host.shared.shared_read(response, k.HEADER_SIZE)


def untrusted_host() -> UntrustedHost:
    """One around a guest that has just started."""
    shared = shared_pages()
    door = shared.door
    honest = HonestHost(door, shared, STAND_IN, (0, 0, 0, 0))
    return UntrustedHost(door, shared.tasks, shared, Clock(door), honest, STAND_IN)


def test_a_host_treats_an_exit_as_planned() -> None:
    """Busy, lost, dropped, changed; honest when nothing is planned."""
    page = request_page(STAND_IN, "report", 0, 0, 0)

    assert guest_exit(untrusted_host(), page, "busy") == ((0, k.BUSY_INFO2, 0), bytes(96))
    assert guest_exit(untrusted_host(), page, "drop") == ((0, 0, 0), bytes(96))
    assert guest_exit(untrusted_host(), page, "lost")[0] == (0, k.GENERIC_INFO2, 0)
    assert guest_exit(untrusted_host(), page, "malformed")[0] == (2, 5, 0)
    told, answer = guest_exit(untrusted_host(), page)
    assert (told, Header.decode(answer).number) == ((0, 0, 0), 2)
    assert Header.decode(guest_exit(untrusted_host(), page, "wrong-number")[1]).number == 0
    extended = guest_exit(untrusted_host(), page, code=k.EXT_GUEST_REQUEST)
    assert extended == ((0, k.TOO_SMALL_INFO2, 2), bytes(96))


def test_what_a_guest_must_not_send_is_found() -> None:
    """One number for two messages; at once after BUSY; an answer's page that is not clear."""
    host = untrusted_host()
    page = request_page(STAND_IN, "report", 0, 0, 0)
    guest_exit(host, page, "busy")

    with breaks(c.BUSY_RESEND):
        guest_exit(host, page)
    host.clock.sleep(2)
    guest_exit(host, page)
    with breaks(c.NO_IV_REUSE):
        guest_exit(host, request_page(STAND_IN, "key", 0, 0, 0))
    region = host.shared.alloc_pages(1)
    host.shared.set_decrypted(region)
    host.shared.shared_write(region, page)
    with breaks(c.PRIVATE_ENCRYPTION):
        host.guest_exit(k.GUEST_REQUEST, region, region, 0, 0)


def test_a_loop_answers_as_an_honest_host_does() -> None:
    """A hypervisor stands between, over the same firmware."""
    answers = []
    for kind in ("direct", "loop"):
        shared = shared_pages()
        if kind == "direct":
            honest = HonestHost(shared.door, shared, STAND_IN, (4, 0, 0, 0))
        else:
            honest = Loop(shared.door, shared, STAND_IN, (4, 0, 0, 0), lambda: started_machine(STAND_IN, 4))
        response = shared.window(shared.alloc_pages(1))
        page = request_page(STAND_IN, "report", 0, 0, 4)
        told = honest.answer(page, response, 0, 0, extended=False)
        answers.append((told, bytes(response.data), honest.counts))

    assert answers[0][0] == answers[1][0] == (0, 0, 0)
    assert answers[0][1][:0x500] == answers[1][1][:0x500]
    assert answers[0][2] == answers[1][2] == (6, 0, 0, 0)
