"""What a test needs that starts a kernel in a guest."""

from __future__ import annotations

import pytest

from conformance.real.guest import packages
from conformance.real.guest.machine import qemu_version
from conformance.verdict import UsageError


def needs(name: str) -> None:
    """Skip where no guest of this kernel can be had, with the sentence that says why: kernels are fetched by people."""
    try:
        packages.kernel(name)
        packages.busybox()
        qemu_version()
    except UsageError as error:
        pytest.skip(str(error))
