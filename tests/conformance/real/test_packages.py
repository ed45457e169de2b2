"""Debian's packages in the cache, and the programs that are run for them; nothing is asked of an archive."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from conformance.real.guest import initramfs, packages
from conformance.real.tools import ran
from conformance.verdict import UsageError

IMAGE = "linux-image-6.99.{}-cloud-amd64"


class Archive:
    """Stands for apt: the lists that were fetched name a kernel, and the archive holds its newest one alone."""

    def __init__(self) -> None:
        self.newest = 1
        self.listed = 0
        self.updates = 0

    def run(self, command: Sequence[str], cwd: str | None = None) -> str:
        """A packaging tool."""
        del cwd
        match [word for word in command if not word.startswith(("-", "Dir::"))]:
            case ["apt-get", "indextargets", *_]:
                return "http://archive Debian /etc/apt/sources.list\n"
            case ["apt-get", "update"]:
                self.listed, self.updates = self.newest, self.updates + 1
            case ["apt-cache", "pkgnames", _] if any("trixie/" in word for word in command):
                return IMAGE.format(self.listed)
            case ["apt-get", "download", name] if name.startswith("linux") and name != IMAGE.format(self.newest):
                raise UsageError("apt-get failed: E: 404  Not Found")
        return ""


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Archive:
    """An archive, and an empty cache."""
    made = Archive()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(packages, "_run", made.run)
    monkeypatch.setattr(packages, "_parts", lambda files, _name: (files / "vmlinuz", files / "6.99"))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    return made


def test_a_kernel_that_was_replaced_is_found_by_fresh_lists(archive: Archive) -> None:
    """Lists that name a package which the archive has no longer are fetched again."""
    packages.fetch("6.99")
    shutil.rmtree(packages.cache() / "kernels")
    archive.newest = 2

    found = packages.fetch("6.99")

    assert found.series == "6.99"
    assert archive.updates == 2


def test_an_archive_that_fails_is_asked_twice(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it said is said."""

    def fails(command: Sequence[str], cwd: str | None = None) -> str:
        if "download" in command:
            raise UsageError("apt-get failed: E: 404  Not Found")
        return archive.run(command, cwd)

    monkeypatch.setattr(packages, "_run", fails)

    with pytest.raises(UsageError, match="404"):
        packages.fetch("6.99")
    assert archive.updates == 2


@pytest.mark.parametrize(("age", "updates"), [(1.0, 1), (2 * packages.LISTS_LAST, 2)])
def test_lists_grow_old(archive: Archive, age: float, updates: int) -> None:
    """They are used for half a day."""
    packages.fetch("6.99")
    stamp = packages.cache() / "apt" / "trixie" / "fetched"
    then = stamp.stat().st_mtime - age
    os.utime(stamp, (then, then))
    shutil.rmtree(packages.cache() / "kernels")

    packages.fetch("6.99")

    assert archive.updates == updates


def test_a_package_without_busybox(archive: Archive) -> None:
    """One sentence, and nothing in the cache."""
    del archive

    with pytest.raises(UsageError, match="busybox-static has no bin/busybox"):
        packages.fetch_busybox()

    assert not (packages.cache() / "busybox").exists()


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (("/nowhere/apt-get",), "apt-get cannot be run: No such file or directory"),
        ((sys.executable, "-c", "raise SystemExit(3)"), "failed: exit code 3"),
        ((sys.executable, "-c", "import sys; sys.exit('first\\nlast')"), "failed: last"),
        ((sys.executable, "-c", "import time; time.sleep(600)"), r"does not end within 0\.1 s"),
    ],
)
def test_a_program_that_comes_to_nothing(command: tuple[str, ...], sentence: str) -> None:
    """It is one sentence, whatever it is."""
    with pytest.raises(UsageError, match=sentence):
        ran(command, 0.1 if "600" in command[-1] else 60)


def test_a_compiler_that_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What it leaves behind is not taken for the helper."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda _name: "/bin/false")

    with pytest.raises(UsageError, match=r"cannot be compiled: false failed: exit code 1"):
        initramfs.helper()
