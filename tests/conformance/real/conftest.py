"""What tests of real implementations share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from conformance.real.guest.machine import end_all
from tests.kernels import needs

KERNEL = os.environ.get("CONFORMANCE_KERNEL", "6.12")


@pytest.fixture(scope="session")
def kernel() -> Iterator[str]:
    """The kernel that most tests are of."""
    needs(KERNEL)
    yield KERNEL
    end_all()
