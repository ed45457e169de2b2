"""What the guests' pages hold, in the words of the model."""

from __future__ import annotations

from typing import ClassVar

from conformance.environment.door import Environment
from conformance.environment.simulator import Simulator
from conformance.environment.snp_guest_request.blobs import Blobs, blob_bytes, blobs_in
from conformance.environment.snp_guest_request.frames import HOST, START_BYTES, Page
from conformance.environment.snp_guest_request.tasks import Tasks
from conformance.model.snp_guest_request.addresses import WATCHED
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import PAGE_SIZE
from conformance.specs.snp_guest_request.profiles import Profile
from conformance.verdict import Violation

USER_TABLE = b"USER" * (PAGE_SIZE // 4)
"""What userspace puts where the guest wants certificates."""

UNTOUCHED: tuple[object, ...] = ("start",) * len(WATCHED)


def classify(
    page: Page,
    responses: dict[bytes, tuple[object, bytes]],
    blobs: list[tuple[str, int]],
) -> object:
    """What a watched page holds, in the words of the model; "corrupt" when it is none of them.

    Where only a part was written, the rest may be what it was, or zero; so the order of `blobs` counts.
    """
    data = bytes(page.data)
    if data == START_BYTES[page.name]:
        return "start"
    found = responses.get(data[:0x60])
    if found is not None:
        label, message = found
        return label if data.startswith(message) else "corrupt"
    if not any(data[:24]):
        return "zero" if _rest_is_old(page, data, 24) else "corrupt"
    if data == USER_TABLE:
        return "user"
    for name, length in blobs:
        blob = blob_bytes(name, length)
        for i in range(-(-length // PAGE_SIZE)):
            part = blob[i * PAGE_SIZE : (i + 1) * PAGE_SIZE]
            if data.startswith(part) and _rest_is_old(page, data, len(part)):
                return (name, i, len(part))
    return "corrupt"


def _is_blobs(label: object) -> bool:
    """Whether a page holds certificates; the same bytes may be those of another blob."""
    return _name_of(label) not in ("", "rsp")


def _name_of(label: object) -> str:
    """Name of the blob, `rsp` for a response, nothing for what is neither."""
    return str(label[0]) if isinstance(label, tuple) else ""


def _rest_is_old(page: Page, data: bytes, size: int) -> bool:
    rest = data[size:]
    return rest == page.before[size:] or not any(rest)


class Contents(Simulator):
    """The guests looking at their own memory: what each page holds that changed, and whether it may.

    A page is known by the bytes that the world itself made: responses, certificates, what was there at first.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (c.BLOB_ATOMIC, c.CERTS_OF_SIGNER)

    def __init__(self, door: Environment, tasks: Tasks, blobs: Blobs, profile: Profile) -> None:
        super().__init__(door)
        self.tasks = tasks
        self.blobs = blobs
        self.of_kernel = profile.certs == "kernel"
        """Whether the certificates are those that the kernel keeps."""
        self.dirty: list[Page] = []
        """Guest pages that changed and are not yet classified."""
        self.watched: list[list[Page]] = [[], []]
        self.labels: list[tuple[object, ...]] = [UNTOUCHED, UNTOUCHED]
        self.responses: dict[bytes, tuple[object, bytes]] = {}
        """By header, every response that firmware made: its label and the whole message."""

    def watch(self, vm: int, pages: list[Page]) -> None:
        """The VM has fresh memory."""
        self.watched[vm] = pages
        self.labels[vm] = UNTOUCHED

    def touch(self, page: Page) -> None:
        """A guest page is about to change: keep what it held at first."""
        if not page.dirty:
            page.dirty = True
            page.before = bytes(page.data)
            self.dirty.append(page)

    def settle(self) -> None:
        """Classify what the operation that has ended changed; in company, requests of two VMs may each have a blob."""
        names: tuple[set[str], ...] = (set(), set())
        for page in self.dirty:
            page.dirty = False
            if page.before == page.data and not _is_blobs(page.label):
                continue
            if page in self.watched[page.vm]:
                page.label = self._label(page)
            if _is_blobs(page.label) and page.before != page.data:
                names[page.vm].add(_name_of(page.label))
        self.dirty = []
        for own in names:
            if len(own) > 1:
                raise Violation(c.BLOB_ATOMIC, f"one request is given pages of blobs {' and '.join(sorted(own))}")
        self.labels = [tuple([p.label for p in pages]) or UNTOUCHED for pages in self.watched]

    def _label(self, page: Page) -> object:
        current = self.blobs.current
        newest = [current[who] for who in (page.vm, HOST) if who in current]
        label = classify(page, self.responses, self.blobs.candidates(newest))
        if label == "corrupt" and self.of_kernel and len(blobs_in(bytes(page.data))) > 1:
            self.dirty = []
            raise Violation(c.BLOB_ATOMIC, f"page {page.name} holds a mixture of blobs")
        return label

    def judge_signer(self, reported_tcb: int) -> None:
        """Host certificates that this request copied belong to the TCB that the report shows (SNP-060).

        While a blob is being set again for another TCB, nobody can tell which of the two it is.
        """
        task, certs_tcb = self.tasks.current, self.blobs.certs_tcb
        if not self.of_kernel or not certs_tcb or type(task.op).__name__ != "ExtGuestRequest":
            return
        being_set = {getattr(other.op, "blob", "") for other in self.tasks.running.values()}
        for page in self.watched[task.vm]:
            if page.dirty:
                name = chr(page.data[0])
                copied = name in certs_tcb and name not in being_set and name in blobs_in(page.data[:16])
                if copied and task.op.message == "report":
                    wanted = certs_tcb[name]
                    self.door.require(
                        c.CERTS_OF_SIGNER,
                        wanted == reported_tcb,
                        f"certificates of TCB {wanted:#x} with a report of TCB {reported_tcb:#x}",
                    )

    def forget(self, vm: int) -> None:
        """The VM's memory is gone."""
        self.watch(vm, [])
