"""What tests of real implementations share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from conformance.real.guest import packages
from conformance.real.guest.machine import end_all, qemu_version
from conformance.verdict import UsageError

KERNEL = os.environ.get("CONFORMANCE_KERNEL", "6.12")


@pytest.fixture(scope="session")
def kernel() -> Iterator[str]:
    """A kernel in the cache, or the sentence that says why no guest can be had."""
    try:
        packages.kernel(KERNEL)
        packages.busybox()
        qemu_version()
    except UsageError as error:
        pytest.skip(str(error))
    yield KERNEL
    end_all()
