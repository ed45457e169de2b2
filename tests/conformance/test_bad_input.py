"""Asking wrongly costs one line, the right exit code, and no traceback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from conformance.commands import main as cli
from tests.toyland import in_short, shipped

ROOT = Path(__file__).parent.parent.parent

GOOD = """\
class Shelf:
    def __init__(self, port):
        self.port = port

    def put(self, value):
        return 0

    def take(self):
        return 0

    def clear(self):
        return 0
"""


@pytest.fixture(autouse=True)
def _toyland(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    with shipped(monkeypatch):
        in_short(monkeypatch)
        monkeypatch.chdir(tmp_path)
        (tmp_path / "good.py").write_text(GOOD)
        yield


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a usage error."""
    code = cli.invoke(arguments)
    out, err = capsys.readouterr()
    assert code == 2, (code, out, err)
    assert out == ""
    (line,) = err.splitlines()
    return line.removeprefix("conformance: ")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("nowhere:Shelf", r"--candidate=nowhere:Shelf: no module named 'nowhere' is importable from "),
        ("nowhere.py:Shelf", r"there is no file nowhere\.py"),
        ("good.py:Shelv", r"good defines no 'Shelv'; did you mean 'Shelf'\?"),
        ("good.py", r"expected builtin:NAME, MODULE:CLASS, FILE\.py:CLASS"),
        ("builtin:upstraem", r"toy ships no 'upstraem'; did you mean 'upstream'\?"),
        ("builtin:TOY-D03", r"TOY-D03 has no candidate: Nothing observes that\."),
        (":Shelf", r"--candidate=:Shelf: expected builtin:NAME, MODULE:CLASS, FILE\.py:CLASS"),
        ("lib:driver.so", r"there is no file driver.so"),
        ("tyo=good.py:Shelf", r"unknown subsystem 'tyo'; did you mean 'toy'\?"),
    ],
)
def test_a_candidate_that_is_not_there(capsys: pytest.CaptureFixture[str], spec: str, says: str) -> None:
    """What was asked for, what was wanted, and the nearest thing that would work."""
    assert re.search(says, refused(capsys, "run", "toy", "--candidate", spec))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("def take(self)", "def tak(self)"), r"Shelf has no method 'take'; did you mean 'tak'\?"),
        (("def take(self)", "def probe(self)"), r"Shelf has no method 'take'; it has clear, probe, put$"),
        (("def put(self, value)", "def put(self)"), r"Shelf\.put\(self\) must accept put\(self, value: int\)"),
        (("def __init__(self, port)", "def __init__(self)"), r"Shelf\(…\) must take one argument, the port"),
        (("class Shelf:", "class Shelf:\n    profile = 'upsteam'"), r"no profile 'upsteam'; did you mean 'upstream'\?"),
        (("class Shelf:", "class Shelf:\n    capabilities = {'color'}"), r"'color'; did you mean 'colour'\?"),
        (("class Shelf:", "class Shelf:\n    profile = []"), r"its profile is a list, expected a name"),
        (("class Shelf:", "class Shelf:\n    capabilities = 5"), r"its capabilities are 5, expected a set of names"),
        (("class Shelf:", "class Shelf:\n    capabilities = 'red'"), r"are 'red', expected a set of names"),
        (("def take(self):\n        return 0", "take = 5"), r"Shelf\.take is a int, expected a method"),
        (("def take(self):\n        return 0", "take = dict"), r"looking at the class raised ValueError: no signature"),
        (("class Shelf:", "class Shelf"), r"raised SyntaxError at line 1: "),
        (("class Shelf:", "import nothing_like_it\nclass Shelf:"), r"raised ModuleNotFoundError: "),
    ],
)
def test_a_candidate_that_cannot_be_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    """Found out before anything runs."""
    (tmp_path / "bad.py").write_text(GOOD.replace(*change))

    assert re.search(says, refused(capsys, "run", "toy", "--candidate", "bad.py:Shelf"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), r"run needs --candidate SPEC"),
        (
            ("--candidate", "builtin:upstream", "--profile", "upsteam"),
            r"no profile 'upsteam'; did you mean 'upstream'\?",
        ),
        (("--candidate", "builtin:upstream", "--engine", "campain"), r"engine 'campain'; did you mean 'campaign'\?"),
        (("--candidate", "builtin:upstream", "--engine", ","), r"names no engine; known: corpus, "),
        (("--candidate", "builtin:upstream", "--budget", "soon"), r"expected a time above 0, such as 90s"),
        (("--candidate", "builtin:upstream", "--shard", "3/2"), r"expected I/N with I from 1 to N"),
        (("--candidate", "builtin:upstream", "-k", "TOI-*"), r"-k TOI-\*: matches no clause"),
        (("--candidate", "builtin:upstream", "-n", "0"), r"'-n': 0 is not in the range x>=1"),
        (("--candidate", "builtin:upstream", "--seed", "-1"), r"--seed=-1: expected a number from 0 to 4294967295"),
        (("--candidate", "builtin:upstream", "--seed", "1" * 23), r"--seed=1{23}: expected a number from 0 to"),
        (("--candidate", "builtin:upstream", "--seed", "x"), r"'--seed': 'x' is not a valid integer"),
        (
            ("--candidate", "builtin:upstream", "--report", "xml:a"),
            r"--report=xml:a: expected FORM:PATH, where FORM is json, junit,",
        ),
        (("--candidate", "builtin:upstream", "--report", "json:no/a"), r"there is no directory \S+/no"),
        (("--candidate", "builtin:upstream", "--report", "json:/proc/a"), r"--report=json:/proc/a: "),
        (("--candidate", "builtin:upstream", "--verbos"), r"No such option.*--verbos"),
        (
            ("--candidate", "builtin:upstream", "--candidate", "builtin:as-posted"),
            r"is given already, builtin:upstream",
        ),
    ],
)
def test_a_run_that_cannot_be(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str) -> None:
    """Options are checked before anything runs."""
    assert re.search(says, refused(capsys, "run", "toy", *arguments))


def test_a_candidate_of_nothing_in_particular(capsys: pytest.CaptureFixture[str]) -> None:
    """A class of the user's implements one subsystem, and we do not guess which."""
    line = refused(capsys, "run", "--candidate", "good.py:Shelf")

    assert line == "--candidate=good.py:Shelf: say what it implements: --candidate=SUBSYSTEM=good.py:Shelf"


def test_an_unknown_subsystem(capsys: pytest.CaptureFixture[str]) -> None:
    """The nearest one is offered."""
    assert "did you mean 'toy'?" in refused(capsys, "run", "tyo", "--candidate", "builtin:upstream")


def test_an_unknown_clause(capsys: pytest.CaptureFixture[str]) -> None:
    """The nearest one is offered."""
    assert refused(capsys, "explain", "TOI-002") == "there is no clause 'TOI-002'; did you mean 'TOY-002'?"


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Not a traceback either."""
    assert "No such command 'rnu'" in refused(capsys, "rnu")


TRACE = {"schema": 1, "subsystem": "toy", "profile": "upstream", "config": {}, "steps": [{"op": "Put", "value": 1}]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": 2}, r"\$\.schema: this version reads schema 1, not 2"),
        ({"subsystem": "tyo"}, r"\$\.subsystem: unknown subsystem 'tyo'; known: toy"),
        ({"profile": "upsteam"}, r"\$\.profile: toy has no profile 'upsteam'; did you mean 'upstream'\?"),
        ({"steps": [{"op": "Put", "value": "1"}]}, r"\$\.steps\[0\]\.value: Expected `int`, got `str`"),
        ({"steps": [{"op": "Putt"}]}, r"\$\.steps\[0\]\.op: unknown operation 'Putt'"),
        ({"config": {"size": 1, "colour": 1}}, r"\$\.config\.colour: unknown field"),
        ({"more": 1}, r"\$\.more: unknown field"),
    ],
)
def test_a_trace_that_is_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    """The offending value is named by its path."""
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({**TRACE, **change}))

    assert re.search(says, refused(capsys, "replay", str(path), "--candidate", "builtin:upstream"))


def test_a_trace_that_is_not_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Not a parser's traceback."""
    path = tmp_path / "trace.json"
    path.write_text('{"schema": 1, "steps"')

    assert "not a trace file" in refused(capsys, "replay", str(path), "--candidate", "builtin:upstream")


def test_a_trace_of_another_subsystem(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A candidate that says what it is cannot replay another subsystem's trace."""
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(TRACE))

    line = refused(capsys, "replay", str(path), "--candidate", "shop=builtin:upstream")

    assert line.endswith("trace.json is a trace of toy, and the candidate is one of shop")


def test_a_trace_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """The path and the reason."""
    line = refused(capsys, "replay", "gone.json", "--candidate", "builtin:upstream")

    assert line == "gone.json: No such file or directory"


def test_a_candidate_that_swallows_what_the_harness_raises(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The first breach stays the first breach."""
    body = "try:\n            self.port.free(99)\n        except BaseException:\n            pass\n        return 0"
    (tmp_path / "sly.py").write_text(GOOD.replace("return 0", body, 1))

    code = cli.invoke(["run", "toy", "--candidate", "sly.py:Shelf", "--engine", "explore"])

    assert (code, "TOY-006 violated" in capsys.readouterr().out) == (1, True)


def test_a_candidate_that_does_nothing_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """Returning 0 to everything is not conformance."""
    code = cli.invoke(["run", "toy", "--candidate", "good.py:Shelf", "--engine", "explore"])

    assert code == 1
    assert "TOY-001 violated by good.py:Shelf" in capsys.readouterr().out


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """The command in a process of its own, which Ctrl-C reaches even where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "conformance", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            **options,
        )
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_partial_report(tmp_path: Path, workers: str, ending: signal.Signals) -> None:
    """In the middle of a hunt: the footer says so, the exit code is 4, and the report is whole."""
    path = tmp_path / "report.jsonl"
    process = start(
        *("run", "uio_msi", "--candidate", "builtin:upstream", "--engine", "campaign", "--budget", "5m"),
        *("-n", workers, "--report", f"json:{path}"),
        start_new_session=True,
    )
    assert process.stderr is not None
    progress = process.stderr.readline()

    os.killpg(process.pid, ending)
    if ending is signal.SIGTERM:  # as `timeout` does
        os.killpg(process.pid, ending)
    out, err = process.communicate(timeout=120)

    assert "steps" in progress
    assert process.returncode == 4, (out, err)
    assert out.splitlines()[-1] == "exit 4: uio_msi: inconclusive: interrupted before the end"
    footer = json.loads(path.read_text().splitlines()[-1])
    assert (footer["kind"], footer["interrupted"], footer["steps"] > 0) == ("footer", True, True)
    assert "Traceback" not in err


def test_sigterm_ends_a_background_job(tmp_path: Path) -> None:
    """A shell script's background jobs ignore Ctrl-C from birth; a cancelled job must end all the same."""
    command = f"{sys.executable} -m conformance run uio_msi --candidate builtin:upstream --budget 5m --engine campaign"
    shell = subprocess.Popen(
        ["/bin/sh", "-c", f"{command} & echo $!; wait $!; echo ended $?"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert shell.stdout is not None
    assert shell.stderr is not None
    pid = int(shell.stdout.readline())
    shell.stderr.readline()

    os.kill(pid, signal.SIGTERM)
    out, _ = shell.communicate(timeout=120)

    assert out.splitlines()[-1] == "ended 4"


def test_nobody_reading_on_is_no_error() -> None:
    """`conformance list | head -1` ends quietly."""
    process = start("list", "uio_msi")
    assert process.stdout is not None
    process.stdout.close()

    with process:
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.parametrize("command", [("list", "uio_msi"), ("list", "--json")])
def test_a_full_disk_behind_standard_output(command: tuple[str, ...]) -> None:
    """It is named, and nothing else is said of it."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "conformance", *command],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )

    said = "conformance: the suite failed: No space left on device: standard output\n"
    assert (done.returncode, done.stderr) == (3, said)


def test_a_closed_standard_output(tmp_path: Path) -> None:
    """Nobody listens; the exit code still says how it went, and the report does not take its place."""
    command = f"{sys.executable} -m conformance run uio_msi --candidate builtin:upstream --engine corpus"
    done = subprocess.run(
        ["/bin/sh", "-c", f"{command} --report json:{tmp_path}/report.json >&- 2>err <&-; echo $?"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )

    assert done.stdout == "4\n"
    assert all("running uio_msi.corpus" in line for line in (tmp_path / "err").read_text().splitlines())
    assert json.loads((tmp_path / "report.json").read_text().splitlines()[-1])["kind"] == "footer"


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_closed_stream_and_a_candidate_of_somebody_else(closed: str, tmp_path: Path) -> None:
    """The process that holds it has something in that place, too; the exit code is that of the verdict."""
    driver = ROOT / "examples" / "uio_minimal.py"
    command = f"{sys.executable} -m conformance run uio_msi --candidate {driver}:Minimal --engine corpus -x"
    done = subprocess.run(
        ["/bin/sh", "-c", f"{command} {closed}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )

    assert done.returncode == 1


def test_ctrl_c_while_everything_is_loaded() -> None:
    """As soon as our first line runs there is no traceback any more, whenever it comes."""
    for delay in (0.03, 0.06, 0.1, 0.15, 0.2, 0.3):
        process = start("run", "uio_msi", "--candidate", "builtin:upstream", "--budget", "1m", "--engine", "campaign")
        with process:
            assert process.stderr is not None
            with suppress(subprocess.TimeoutExpired):
                process.wait(delay)
            process.send_signal(signal.SIGINT)
            err = process.stderr.read()

        if "conformance" in err:  # else Python itself had not begun
            assert process.returncode == 4, err
            assert "Traceback" not in err


def test_ctrl_c_while_a_dataclass_is_made(tmp_path: Path) -> None:
    """The exit code stays: Python remembers where an interrupt came, and ends by the signal even if it was heard."""
    (tmp_path / "interrupted.py").write_text(
        "from conformance.commands import main\n"
        "def invoke(arguments):\n"
        "    try:\n"
        "        exec('raise KeyboardInterrupt')\n"
        "    except KeyboardInterrupt:\n"
        "        return 4\n"
        "main.invoke = invoke\n"
        "main.main([])\n"
    )

    done = subprocess.run([sys.executable, "-m", "interrupted"], cwd=tmp_path, capture_output=True, check=False)

    assert done.returncode == 4, done.stderr


@pytest.mark.parametrize("columns", [20, 60])
def test_what_people_read_fits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """Lines are broken between words beside their labels; commands to be pasted and JSON are left as they are."""
    wide = cli.invoke(["run", "toy", "--candidate", "good.py:Shelf", "--engine", "explore"]), capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", str(columns))

    narrow = cli.invoke(["run", "toy", "--candidate", "good.py:Shelf", "--engine", "explore"]), capsys.readouterr().out
    cli.invoke(["list", "--json"])

    def words(text: str) -> list[str]:
        return [word for word in re.sub(r"figures.*", "", text, flags=re.DOTALL).split() if word]

    assert words(wide[1].split("figures")[0]) == words(narrow[1].split("figures")[0])
    json.loads(capsys.readouterr().out)
    for line in narrow[1].splitlines():
        assert len(line) <= columns or " replay " in line or " " not in line.strip(), line


DEATHS = {
    "os._exit(0)": "its process ended with exit code 0",
    "os._exit(7)": "its process ended with exit code 7",
    "ctypes.string_at(0)": "its process was killed by SIGSEGV",
    "os.kill(os.getpid(), 9)": "its process was killed by SIGKILL",
    "raise KeyboardInterrupt": "open raised KeyboardInterrupt",
}


def dying(path: Path, how: str) -> str:
    """The spec of a driver whose second open ends so."""
    path.write_text(
        "import ctypes\nimport os\n\nfrom conformance.candidates.builtin.uio_msi.upstream import Upstream\n\n\n"
        "class Dying(Upstream):\n"
        "    opened = 0\n\n"
        "    def open(self):\n"
        "        self.opened += 1\n"
        "        if self.opened == 2:\n"
        f"            {how}\n"
        "        return super().open()\n"
    )
    return f"{path}:Dying"


def test_a_candidate_that_goes_elsewhere_moves_nobody(tmp_path: Path) -> None:
    """It is found again for the next unit, and reports and traces are where they were asked for."""
    (tmp_path / "moving.py").write_text(
        "import os\n\nfrom conformance.candidates.builtin.uio_msi.upstream import Upstream\n\n\n"
        "class Moving(Upstream):\n"
        "    def open(self):\n"
        "        os.chdir('/')\n"
        "        return 5\n"
    )
    process = start(
        *("run", "uio_msi", "--candidate", "moving.py:Moving", "--engine", "corpus,interleave"),
        *("--report", "json:report.json"),
        cwd=tmp_path,
    )

    out, err = process.communicate(timeout=300)

    assert process.returncode == 1, (out, err)
    assert json.loads((tmp_path / "report.json").read_text().splitlines()[-1])["exit"] == 1
    assert list((tmp_path / ".conformance" / "traces" / "uio_msi").glob("UIO-047-Open-result-*.json"))


WAYS = {
    "os._exit(0)": ("interleave", "-x"),
    "os._exit(7)": ("corpus,explore", "-n", "2"),
    "raise KeyboardInterrupt": ("machine", "-x"),
}
"""How what does not end in the corpus alone is searched for."""


@pytest.mark.parametrize("how", DEATHS)
def test_a_candidate_that_ends_its_process_is_found_out(tmp_path: Path, how: str) -> None:
    """A finding like any other, with clause, step and minimal trace; the other units go on."""
    report = tmp_path / "report.json"
    process = start(
        *("run", "uio_msi", "--candidate", dying(tmp_path / "mine.py", how), "--engine", *WAYS.get(how, ("corpus",))),
        *("--report", f"json:{report}"),
        cwd=tmp_path,
    )

    out, err = process.communicate(timeout=300)

    assert process.returncode == 1, err
    assert "UIO-078 violated by " in out
    assert DEATHS[how] in out
    assert re.search(r"step \d    (open|flood_opens)\(rawio=\w+\) did not end", out)
    assert out.splitlines()[-1].startswith("exit 1: uio_msi: does not conform: ")
    found = [line for line in map(json.loads, report.read_text().splitlines()) if line["kind"] == "failure"]
    assert ("UIO-078:Open:crash", 3) in {(f["signature"], len(f["trace"]["steps"])) for f in found}
