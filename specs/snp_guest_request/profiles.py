"""Profiles and capabilities: where sources disagree, and what a candidate may lack."""

from __future__ import annotations

from dataclasses import dataclass

from conformance.specs import clause


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile(clause.Profile):
    """How a hypervisor forwards pages, where certificates come from, and how errors are told."""

    pages: str
    """`bounce`: firmware works on host pages; `inplace`: on the guest's own."""
    certs: str
    """`userspace`: fetched by an exit when enabled; `empty`: always an empty table; `kernel`: blobs in the host."""
    errors: str
    """`ghcb`: hypervisor conditions high, firmware low, host failures end KVM_RUN; `posted`: all in the low half."""
    resend: str = "wipes"
    """A guest whose basic request after "too small" is refused: `wipes` its key, or `keeps` it and counts on.

    Released Linux keeps it (sev-guest, __handle_guest_request puts the earlier answer over the later one, and
    snp_send_guest_request wipes for neither). No number is used twice, but firmware may not have counted.
    """


PROFILES = {
    "upstream": Profile(
        name="upstream",
        text="Bounce pages, certificates from userspace, errors as the GHCB has them.",
        pages="bounce",
        certs="userspace",
        errors="ghcb",
    ),
    "linux": Profile(
        name="linux",
        text='As upstream, but a guest keeps its key when the request after "too small" fails, as Linux does.',
        pages="bounce",
        certs="userspace",
        errors="ghcb",
        resend="keeps",
    ),
    "as-posted": Profile(
        name="as-posted",
        text="The guest's pages in place, certificates in the kernel, all errors in the low half (RFC v7).",
        pages="inplace",
        certs="kernel",
        errors="posted",
    ),
    "kernel-certs": Profile(
        name="kernel-certs",
        text="The posted design with errors as the GHCB has them.",
        pages="inplace",
        certs="kernel",
        errors="ghcb",
    ),
    "bounce-certs": Profile(
        name="bounce-certs",
        text="Bounce pages, and certificates that the kernel keeps.",
        pages="bounce",
        certs="kernel",
        errors="ghcb",
    ),
    "stub": Profile(
        name="stub",
        text="Bounce pages and no certificates at all (Linux 6.11).",
        pages="bounce",
        certs="empty",
        errors="ghcb",
    ),
}


CAPABILITIES = {
    "hypervisor": "handles guest requests of SNP VMs (kind H)",
    "guest": "is a guest's driver of the secure processor (kind G)",
    "verifier": "parses certificate tables",
    "userspace-certs": "fetches certificates from userspace (certs=userspace)",
    "kernel-certs": "keeps certificates of its own (certs=kernel)",
    "throttle": "limits the rate of guest requests",
    "move": "answers requests to move or mirror a VM",
}
