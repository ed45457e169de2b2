"""What a process died of, in words."""

from __future__ import annotations

import pytest

from conformance.runs import autopsy

ASAN = """==123==ERROR: AddressSanitizer: heap-use-after-free on address 0x60 at pc 0x70
READ of size 4 at 0x60 thread T0
SUMMARY: AddressSanitizer: heap-use-after-free driver.c:12 in put
Shadow bytes around the buggy address:
==123==ABORTING
"""
FREED = """==5==ERROR: AddressSanitizer: attempting double-free on 0x60 in thread T0:
    #0 0x7f in __interceptor_free ../../../../src/libsanitizer/asan/asan_malloc_linux.cpp:52
    #1 0x7e in double_free /home/me/driver.c:3
    #2 0x7d in close /home/me/driver.c:30
SUMMARY: AddressSanitizer: double-free ../../../../src/libsanitizer/asan/asan_malloc_linux.cpp:52 in __interceptor_free
"""
PYTHON = """about to go
Fatal Python error: Segmentation fault

Current thread 0x00007f (most recent call first):
  File "/usr/lib/python3/mine.py", line 12 in take
  File "/usr/lib/python3/conformance/door.py", line 7 in enter
"""


@pytest.mark.parametrize(
    ("code", "how"),
    [
        (0, "its process ended with exit code 0"),
        (7, "its process ended with exit code 7"),
        (-9, "its process was killed by SIGKILL"),
        (-40, "its process was killed by signal 40"),
        (-25, "wrote more than 16 MiB to its output"),
    ],
)
def test_how_a_process_ended(code: int, how: str) -> None:
    """An orderly end is an end like any other; a limit says what it is a limit of."""
    assert autopsy.how(code) == how


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("", "gone"),
        ("one\n\n  two\n", "gone\n| one\n|   two"),
        (ASAN, "gone: AddressSanitizer: heap-use-after-free driver.c:12 in put"),
        (
            FREED,
            (
                "gone: AddressSanitizer: double-free ../../../../src/libsanitizer/asan/asan_malloc_linux.cpp:52 in "
                "__interceptor_free, called by double_free at driver.c:3"
            ),
        ),
        (PYTHON, "gone, at mine.py:12 in take\n| about to go"),
        (PYTHON.replace("/usr/lib/python3/mine.py", f"{autopsy.OURS[0]}modes.py"), "gone\n| about to go"),
        ("".join(f"{n}\n" for n in range(9)), "gone\n| 4\n| 5\n| 6\n| 7\n| 8"),
        ("x" * 500, "gone\n| " + "x" * autopsy.WIDE),
    ],
    ids=["nothing", "lines", "sanitizer", "interceptor", "python", "ours", "many", "wide"],
)
def test_what_the_output_says_of_it(output: str, told: str) -> None:
    """A sanitizer's summary, the place in Python, or the last lines."""
    assert autopsy.told("gone", output) == told
