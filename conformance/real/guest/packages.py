"""Debian's packages, fetched and unpacked in the user's cache and never installed on the machine.

A kernel is asked for by its series, `6.1`, or by more of its version. The archive that the machine uses is asked
first; the suites trixie and trixie-backports of the same archive are asked through lists of their own.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.real.tools import ran
from conformance.verdict import UsageError

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SUITES = ("", "trixie", "trixie-backports")
"""Where kernels are looked for, in this order; "" is what the machine itself has configured."""
PATIENCE = 600.0
"""Seconds that one run of a packaging tool may take."""
LISTS_LAST = 12 * 3600.0
"""Seconds after which the lists of a suite are fetched again: Debian removes the packages that it has replaced."""
_FLAVOUR = "cloud-amd64"
_IMAGE = re.compile(rf"linux-image-(\d+\.\d+)\.?[^ ]*-{_FLAVOUR}$")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel in the cache."""

    series: str
    """As it was asked for: `6.12`."""
    release: str
    """As `uname -r` says."""
    version: str
    """Of the package."""
    vmlinuz: Path
    modules: Path
    """The folder that holds `kernel/`."""


def cache() -> Path:
    """The suite's folder in the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "conformance"


def kernels() -> list[Kernel]:
    """Kernels in the cache, oldest series first."""
    folders = sorted((cache() / "kernels").glob("*/version"), key=lambda path: _order(path.parent.name))
    return [kernel for path in folders if (kernel := _read(path.parent)) is not None]


def kernel(series: str) -> Kernel:
    """The kernel of a series, from the cache.

    Raises:
        UsageError  it is not there
    """
    found = _read(cache() / "kernels" / series) if re.fullmatch(r"\d+\.\d+", series) else None
    if found is None:
        have = ", ".join(k.series for k in kernels()) or "none"
        raise UsageError(
            f"no kernel {series!r} in the cache (it holds {have}); run `conformance real fetch {series}` first"
        )
    return found


def busybox() -> Path:
    """The statically linked busybox, from the cache; UsageError when it is not there."""
    path = cache() / "busybox" / "busybox"
    if not path.is_file():
        raise UsageError("no busybox in the cache; run `conformance real fetch` first")
    return path


def fetch(series: str) -> Kernel:
    """Fetch and unpack a kernel of a series, unless the cache has it.

    Raises:
        UsageError  the archive has none, or cannot be reached
    """
    if not re.fullmatch(r"\d+\.\d+", series):
        raise UsageError(f"{series!r} is no kernel series; expected two numbers, such as 6.12")
    target = cache() / "kernels" / series
    present = _read(target)
    if present is not None:
        return present
    for suite in SUITES:
        try:
            _fetch_from(suite, series, target)
        except UsageError as error:
            if not suite:
                raise UsageError(f"{error}; if Debian has replaced the package, run `apt-get update` first") from None
            _stamp(suite).unlink(missing_ok=True)
            _fetch_from(suite, series, target)
        found = _read(target)
        if found is not None:
            return found
    raise UsageError(f"no Debian package of kernel {series} can be had; `conformance real list` says which can")


def _fetch_from(suite: str, series: str, target: Path) -> None:
    """Fetch and unpack the newest kernel of a series that a suite has, if it has one."""
    with _suite(suite) as options:
        names = _images(options).get(series)
        if not names:
            return
        with _fresh(target) as folder:
            for name in names:
                _unpack(name, options, folder / "files")
            vmlinuz, modules = _parts(folder / "files", names[0])
            version = _policy(names[0], options)
            (folder / "version").write_text(
                f"{modules.name}\n{version}\n{vmlinuz.relative_to(folder)}\n{modules.relative_to(folder)}\n"
            )


def fetch_busybox() -> Path:
    """Fetch busybox-static, unless the cache has it."""
    target = cache() / "busybox"
    if not (target / "busybox").is_file():
        with _suite("") as options, _fresh(target) as folder:
            _unpack("busybox-static", options, folder / "files")
            found = sorted((folder / "files").rglob("bin/busybox"))
            if not found:
                raise UsageError("the package busybox-static has no bin/busybox")
            shutil.copy2(found[0], folder / "busybox")
            shutil.rmtree(folder / "files")
    return target / "busybox"


def offered() -> dict[str, str]:
    """Series of the kernels that can be fetched, and the suite of each ("" for the machine's own)."""
    found: dict[str, str] = {}
    for suite in SUITES:
        with contextlib.suppress(UsageError), _suite(suite) as options:
            for series in _images(options):
                found.setdefault(series, suite)
    return dict(sorted(found.items(), key=lambda item: _order(item[0])))


def _order(series: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", series))


def _read(folder: Path) -> Kernel | None:
    """A kernel as the cache remembers it; None where it is not there, or not whole."""
    try:
        release, version, vmlinuz, modules = (folder / "version").read_text().splitlines()
    except (OSError, ValueError):
        return None
    return Kernel(folder.name, release, version, folder / vmlinuz, folder / modules)


@contextlib.contextmanager
def _fresh(target: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `target` if all goes well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield folder
        shutil.rmtree(target, ignore_errors=True)
        with contextlib.suppress(OSError):  # another process was as quick
            folder.replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _suite(suite: str) -> Iterator[tuple[str, ...]]:
    """Options with which apt looks into a suite, its lists fresh enough."""
    if shutil.which("apt-get") is None:
        raise UsageError("apt-get is not on this machine: kernels come from Debian's packages")
    if not suite:
        yield ()
        return
    folder = cache() / "apt" / suite
    for part in ("lists/partial", "archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    sources = folder / "sources.list"
    sources.write_text(f"deb [signed-by={KEYRING}] {_archive()} {suite} main\n")
    options = (
        "-o", f"Dir::Etc::sourcelist={sources}", "-o", "Dir::Etc::sourceparts=-",
        "-o", f"Dir::State::lists={folder / 'lists'}", "-o", f"Dir::Cache={folder}",
    )  # fmt: skip
    stamp = _stamp(suite)
    if not stamp.is_file() or time.time() - stamp.stat().st_mtime > LISTS_LAST:
        _run(("apt-get", *options, "-qq", "update"))
        stamp.touch()
    yield options


def _stamp(suite: str) -> Path:
    """The file whose age is that of a suite's lists."""
    return cache() / "apt" / suite / "fetched"


def _archive() -> str:
    """The address of the archive that the machine uses."""
    lines = _run(("apt-get", "indextargets", "--format", "$(SITE) $(ORIGIN) $(CREATED_BY)")).splitlines()
    for line in lines:
        site, _, rest = line.partition(" ")
        if rest.startswith("Debian ") and "security" not in site:
            return site
    raise UsageError("apt knows no archive of Debian's; kernels come from there")


def _images(options: Sequence[str]) -> dict[str, list[str]]:
    """By series, the packages that make up its newest kernel."""
    names = _run(("apt-cache", *options, "pkgnames", "linux-image-")).split()
    best: dict[str, str] = {}
    for name in names:
        match = _IMAGE.match(name)
        if match and re.match(r"linux-image-\d+\.\d+\.\d+|linux-image-\d+\.\d+\+", name):
            series = match.group(1)
            if series not in best or _order(name) > _order(best[series]):
                best[series] = name
    return {series: [name, *_companions(name, options)] for series, name in best.items()}


def _companions(name: str, options: Sequence[str]) -> list[str]:
    """The packages that hold the rest of an image, where Debian has split it."""
    wanted = _run(("apt-cache", *options, "depends", "--no-recommends", "--no-suggests", name))
    return re.findall(r"Depends: (linux-(?:binary|modules)-\S+)", wanted)


def _policy(name: str, options: Sequence[str]) -> str:
    found = re.search(r"Candidate: (\S+)", _run(("apt-cache", *options, "policy", name)))
    return found.group(1) if found else "unknown"


def _unpack(name: str, options: Sequence[str], into: Path) -> None:
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent) as folder:
        _run(("apt-get", *options, "-qq", "download", name), cwd=folder)
        for archive in sorted(Path(folder).glob("*.deb")):
            _run(("dpkg-deb", "-x", str(archive), str(into)))


def _parts(files: Path, name: str) -> tuple[Path, Path]:
    """The image and the folder of modules in what was unpacked."""
    images = [path for path in sorted(files.rglob("vmlinuz*")) if path.is_file()]
    modules = [path.parent for path in sorted(files.rglob("lib/modules/*/kernel"))]
    if not images or not modules:
        raise UsageError(f"the package {name} is not laid out as kernels of Debian are")
    return images[0], modules[0]


def _run(command: Sequence[str], cwd: str | None = None) -> str:
    """What a packaging tool printed."""
    return ran(command, PATIENCE, cwd).stdout
