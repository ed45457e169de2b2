"""The command line. Commands are thin: what they do is in the other files of this folder.

Every command ends with one line that says the exit code and why.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from conformance.commands import options
from conformance.commands.output import complain, open_missing, put, say
from conformance.commands.run import Run
from conformance.commands.strength import Strength
from conformance.engines.corpus import TRACES
from conformance.reports import forms
from conformance.reports.version import SUITE
from conformance.verdict import Ending, Exit, HarnessError, Terminated, UsageError

TWICE = 2.0
"""Seconds within which a second SIGTERM is the first one's echo."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(SUITE, message="%(version)s")
@click.option("--traceback", "show_traceback", is_flag=True, help="Show the traceback when the suite itself fails.")
def cli(show_traceback: bool) -> None:
    """Hold an implementation of a Linux-virtualization subsystem to its specification.

    Exit codes: 0 conforms, 1 does not conform, 2 usage, 3 the suite failed, 4 inconclusive, 5 nothing ran,
    6 the baseline needs attention.
    """
    if show_traceback:
        os.environ["CONFORMANCE_DEBUG"] = "1"


_ON_CLUSTER = "Do the work on the machines of a dask scheduler, such as tcp://HOST:8786, instead of here."
_CANDIDATE = "builtin:NAME, MODULE:CLASS, FILE.py:CLASS, lib:FILE.so, cmd:PROGRAM or real:NAME"
_trace_wire = click.option(
    "--trace-wire",
    "wire",
    is_flag=False,
    flag_value="-",
    metavar="[FILE]",
    help="Show what is said to a candidate that is a process, and what it says: on standard error, or in FILE.",
)


@cli.command()
@click.argument("subsystems", nargs=-1, metavar="[SUBSYSTEM]...")
@click.option(
    "--candidate", "specs", multiple=True, metavar="SPEC", help=f"{_CANDIDATE}; SUBSYSTEM=SPEC for one of several."
)
@click.option("--profile", metavar="P", help="Which profile to hold it to; default: the one the candidate declares.")
@click.option(
    "--engine", metavar="E,...", help="corpus, explore, interleave, campaign, machine; default: these. Also: symbolic."
)
@click.option("--seed", type=int, metavar="N", help="Seed of all random choices; a hunt picks one when none is given.")
@click.option("--budget", metavar="TIME", help="Hunt that long (90s, 10m, 1h) instead of running the fixed gate.")
@click.option(
    "-k", "only", default="*", metavar="GLOB", help="Judge only the clauses whose id matches, such as UIO-03*."
)
@click.option("-n", "workers", type=click.IntRange(1), default=1, metavar="WORKERS", help="Processes side by side.")
@click.option("-x", "first", is_flag=True, help="End with the first failure.")
@click.option("--shard", metavar="I/N", help="Do the I-th of N parts of the work.")
@click.option("--corpus", metavar="DIR", help="Your own traces, tried first; a hunt adds to them.")
@click.option("--report", "reports", multiple=True, metavar="FORM:PATH", help="Also write a report (repeatable).")
@click.option("--traces", default=str(TRACES), show_default=True, metavar="DIR", help="Where failing traces go.")
@click.option("--strict", is_flag=True, help="Breaches of SHOULD clauses fail, too.")
@click.option("--baseline", "known", metavar="FILE", help="Failures that are known; see conformance baseline.")
@click.option("--allow-untracked", "untracked", is_flag=True, help="Known failures need no ticket and no last day.")
@click.option("--cluster", metavar="ADDRESS", help=_ON_CLUSTER)
@_trace_wire
def run(
    subsystems: tuple[str, ...],
    specs: tuple[str, ...],
    profile: str | None,
    engine: str | None,
    seed: int | None,
    budget: str | None,
    only: str,
    workers: int,
    first: bool,
    shard: str | None,
    corpus: str | None,
    reports: tuple[str, ...],
    traces: str,
    strict: bool,
    known: str | None,
    untracked: bool,
    cluster: str | None,
    wire: str | None,
) -> Ending:
    """Test a candidate and give a verdict per clause.

    Without --budget this is the gate: fixed work, the same verdict every time. With --budget it is the hunt:
    random, until the time is up.
    """
    from conformance.baseline.file import expected
    from conformance.runs.request import Request

    if not specs:
        raise UsageError("run needs --candidate SPEC, for instance --candidate builtin:upstream")
    options.place(workers, cluster)
    limit = None if budget is None else options.seconds(budget)
    chosen = options.seed(seed) if seed is not None else 0 if limit is None else random.randrange(2**32)
    chosen_candidates = options.candidates(specs, subsystems, _everything)
    request = Request(
        candidates=chosen_candidates,
        profile=profile,
        baseline=() if known is None else expected(Path(known), chosen_candidates, profile, untracked),
        engines=options.engines(engine),
        seed=chosen,
        budget=limit,
        corpus=options.corpus(corpus),
        shard=options.shard(shard),
        workers=workers,
        first=first,
    )
    if limit is not None:
        say(f"hunting for {limit:g} s with --seed {chosen}\n")
    paths = forms.targets(reports)
    with options.shown_wire(wire):
        return Run(request, only, strict, paths, Path(traces), cluster, say=say, complain=complain).perform()


@cli.command()
@click.argument("subsystems", nargs=-1, metavar="[SUBSYSTEM]...")
@click.option("-k", "only", default="*", metavar="GLOB", help="Only the defects whose id matches, such as UIO-D0*.")
@click.option("-n", "workers", type=click.IntRange(1), default=1, metavar="WORKERS", help="Processes side by side.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Seed of the random engines.")
@click.option("--report", "reports", multiple=True, metavar="FORM:PATH", help="Also write a report (repeatable).")
@click.option("--record", "matrix", metavar="FILE", help="Write which clause kills which defect (TOML).")
@click.option("--against", metavar="FILE", help="Fail where a kill is lost that FILE has.")
@click.option("--engine", metavar="NAME,…", help="What each of these engines kills alone, at the gate's settings.")
@click.option("--cluster", metavar="ADDRESS", help=_ON_CLUSTER)
def strength(
    subsystems: tuple[str, ...],
    only: str,
    workers: int,
    seed: int,
    reports: tuple[str, ...],
    matrix: str | None,
    against: str | None,
    engine: str | None,
    cluster: str | None,
) -> Ending:
    """Run the zoo: which clause kills which known defect, in how many steps and seconds."""
    names = tuple(options.subsystem_name(name) for name in subsystems) or _everything()
    options.place(workers, cluster)
    zoo = Strength(names, only, workers, options.seed(seed), forms.targets(reports), cluster, say=say)
    zoo.recording = None if matrix is None else Path(matrix)
    zoo.against = None if against is None else Path(against)
    zoo.alone = () if engine is None else options.searches(engine, matrix or against)
    return zoo.perform()


@cli.group()
def baseline() -> None:
    """Keep a file of the failures that are known, each with the trace that shows it: run --baseline FILE."""


@baseline.command()
@click.argument("file", metavar="FILE")
@click.argument("subsystems", nargs=-1, metavar="[SUBSYSTEM]...")
@click.option(
    "--candidate", "specs", multiple=True, metavar="SPEC", help=f"{_CANDIDATE}; SUBSYSTEM=SPEC for one of several."
)
@click.option("--accept", is_flag=True, help="Record what is new.")
@click.option("--reason", default="", metavar="TEXT", help="Why what is recorded is accepted.")
@click.option("--ticket", default="", metavar="TEXT", help="Where it is seen to.")
@click.option("--owner", default="", metavar="TEXT", help="By whom.")
@click.option("--expires", metavar="DAY", help="The last day on which it is accepted: 2027-01-31, or 90d.")
@click.option("--allow-untracked", "untracked", is_flag=True, help="Record without a ticket and a last day.")
@click.option("--profile", metavar="P", help="Which profile to hold it to; default: the one the candidate declares.")
@click.option("--strict", is_flag=True, help="Record breaches of SHOULD clauses, too.")
@click.option("--budget", metavar="TIME", help="Hunt that long before the gate.")
@click.option("--seed", type=int, default=0, metavar="N", help="Seed of the hunt.")
@click.option("-n", "workers", type=click.IntRange(1), default=1, metavar="WORKERS", help="Processes side by side.")
def update(
    file: str,
    subsystems: tuple[str, ...],
    specs: tuple[str, ...],
    accept: bool,
    reason: str,
    ticket: str,
    owner: str,
    expires: str | None,
    untracked: bool,
    profile: str | None,
    strict: bool,
    budget: str | None,
    seed: int,
    workers: int,
) -> Ending:
    """Run the gate and bring FILE up to what it shows. What is new is shown, and recorded with --accept alone.

    Exit codes: 0 all is known, 1 something is new or cannot be recorded, 6 entries need attention.
    """
    from conformance.commands.baseline import Note, Update, expiry
    from conformance.runs.request import Request

    if not specs:
        raise UsageError("baseline update needs --candidate SPEC, for instance --candidate builtin:as-posted")
    request = Request(
        candidates=options.candidates(specs, subsystems, _everything),
        profile=profile,
        budget=None if budget is None else options.seconds(budget),
        seed=options.seed(seed),
        workers=workers,
    )
    note = Note(reason, ticket, owner, expiry(expires))
    return Update(Path(file), request, accept, note, untracked, strict, say=say, complain=complain).perform()


@baseline.command()
@click.argument("file", metavar="FILE")
@click.option("-n", "workers", type=click.IntRange(1), default=1, metavar="WORKERS", help="Processes side by side.")
def prune(file: str, workers: int) -> Ending:
    """Judge the stored traces of FILE and delete the entries that no longer fail.

    Exit codes: 0 what is left is known, 6 some of it needs attention.
    """
    from conformance.commands.baseline import Prune

    return Prune(Path(file), workers, say=say, complain=complain).perform()


@baseline.command()
@click.argument("file", metavar="FILE")
@click.option("--allow-untracked", "untracked", is_flag=True, help="Entries need no ticket and no last day.")
def lint(file: str, untracked: bool) -> Ending:
    """Look FILE over without running anything: what stands twice, is broken, has expired, or is out of order.

    Exit codes: 0 nothing is wrong, 2 a run would refuse the file, 6 people should see to something.
    """
    from conformance.commands.baseline import lint as perform

    return perform(Path(file), untracked, say)


@cli.command()
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
def diff(old: str, new: str) -> Ending:
    """Compare two reports (JSON lines): what broke, what is fixed, what is exercised, what got slower.

    Exit codes: 0 nothing broke, 1 something did, 4 the new report cannot tell.
    """
    from conformance.reports import diff as reports
    from conformance.reports import json

    found = reports.compare(json.read(Path(old)), json.read(Path(new)))
    if told := reports.lines(found):
        say("\n".join(told))
    return reports.ending(found)


@cli.command()
@click.argument("out", metavar="OUT")
@click.argument("parts", nargs=-1, required=True, metavar="REPORT...")
@click.option("--report", "reports", multiple=True, metavar="FORM:PATH", help="Also write a report (repeatable).")
def merge(out: str, parts: tuple[str, ...], reports: tuple[str, ...]) -> Ending:
    """Put reports (JSON lines) of shards or workers together in OUT; ends as the one run would have."""
    from conformance.reports import json, text
    from conformance.reports.merge import Source
    from conformance.reports.merge import merge as perform

    merged = perform([Source(name, json.read(Path(name))) for name in parts])
    for conclusion in merged.conclusions:
        say("\n".join(text.summary(conclusion)))
    forms.write(forms.targets([f"json:{out}", *reports]), merged.lines)
    return merged.ending


@cli.command()
@click.argument("trace", metavar="TRACE")
@click.option("--candidate", "spec", required=True, metavar="SPEC", help=f"{_CANDIDATE}.")
@click.option("--profile", metavar="P", help="Judge by this profile instead of the trace's.")
@_trace_wire
def replay(trace: str, spec: str, profile: str | None, wire: str | None) -> Ending:
    """Take the steps of one trace, one by one, and show what each changes."""
    from conformance.commands.replay import replay as perform

    with options.shown_wire(wire):
        return perform(Path(trace), spec, profile, say)


@cli.command()
@click.argument("subsystem", metavar="SUBSYSTEM")
@click.option("--candidate", "spec", required=True, metavar="SPEC", help=f"{_CANDIDATE}.")
@click.option("--profile", metavar="P", help="Which profile to hold it to; default: the one the candidate declares.")
def doctor(subsystem: str, spec: str, profile: str | None) -> Ending:
    """Check how a candidate is plugged in, before the first run: each check that fails says what to do.

    Exit codes: 0 the plumbing works, 1 something is not as it should be, 2 it cannot be loaded.
    """
    from conformance.commands.doctor import doctor as perform

    return perform(options.subsystem_name(subsystem), spec, profile, say)


@cli.command()
@click.argument("subsystem", metavar="SUBSYSTEM")
@click.argument("folder", metavar="DIR")
@click.option(
    "--lang",
    "language",
    type=click.Choice(["python", "c", "command"]),
    default="python",
    show_default=True,
    help="A Python class, a library in C, or a program that speaks JSON lines.",
)
@click.option("--capability", "asked", multiple=True, metavar="NAME", help="Begin with this capability (repeatable).")
def new(subsystem: str, folder: str, language: str, asked: tuple[str, ...]) -> Ending:
    """Write a candidate to begin with: it loads, and answers "not implemented" to everything."""
    from conformance.commands.new import new as perform

    return perform(options.subsystem_name(subsystem), language, Path(folder), asked, say)


@cli.group()
def real() -> None:
    """See to the kernels of real candidates (real:linux-vfio@6.12 and others); docs/real.md has more."""


@real.command("fetch")
@click.argument("series", nargs=-1, metavar="[SERIES]...")
def real_fetch(series: tuple[str, ...]) -> Ending:
    """Fetch Debian kernels, 6.1 and 6.12 unless others are named, into the user's cache; nothing is installed."""
    from conformance.commands import real

    return real.fetch(series)


@real.command("list")
@click.option("--offered", is_flag=True, help="Also those that can be fetched.")
def real_list(offered: bool) -> Ending:
    """List the kernels in the cache."""
    from conformance.commands import real

    return real.show(offered)


@real.command("doctor")
def real_doctor() -> Ending:
    """Say what real candidates need, and whether it is here."""
    from conformance.commands import real

    return real.doctor()


@cli.command()
@click.argument("trace", metavar="TRACE")
@click.option(
    "--lang", "language", type=click.Choice(["pytest", "c"]), default="pytest", show_default=True, help="Its form."
)
@click.option("--candidate", "spec", metavar="SPEC", help=f"Who fails in it: {_CANDIDATE}.")
@click.option("-o", "--output", "out", metavar="FILE", help="Write it there instead of printing it.")
def repro(trace: str, language: str, spec: str | None, out: str | None) -> Ending | None:
    """Turn a trace into a program that checks itself: the clause, the steps, what is refused, what must come out."""
    from conformance.commands.repro import repro as perform

    return perform(Path(trace), language, spec, None if out is None else Path(out), put)


@cli.group("corpus")
def corpus_() -> None:
    """Keep a folder of traces that every run tries first (run --corpus DIR)."""


@corpus_.command("init")
@click.argument("folder", metavar="DIR")
def corpus_init(folder: str) -> Ending:
    """Make a corpus, to which hunts add what they find."""
    from conformance.commands import corpus

    return corpus.init(Path(folder))


@corpus_.command("add")
@click.argument("folder", metavar="DIR")
@click.argument("traces", nargs=-1, required=True, metavar="TRACE...")
def corpus_add(folder: str, traces: tuple[str, ...]) -> Ending:
    """Copy trace files into a corpus, each at most once."""
    from conformance.commands import corpus

    return corpus.add(Path(folder), tuple(map(Path, traces)))


@corpus_.command("lint")
@click.argument("folder", metavar="DIR")
def corpus_lint(folder: str) -> Ending:
    """Find what is no trace, is there twice, or cannot happen any more; 1 where something is."""
    from conformance.commands import corpus

    return corpus.lint(Path(folder), say)


@corpus_.command("prune")
@click.argument("folder", metavar="DIR")
def corpus_prune(folder: str) -> Ending:
    """Remove what is there twice, and traces of which no step can happen any more."""
    from conformance.commands import corpus

    return corpus.prune(Path(folder), say)


@cli.command()
@click.argument("form", metavar="FORM")
@click.argument("out", metavar="OUT")
@click.argument("paths", nargs=-1, required=True, metavar="REPORT...")
def report(form: str, out: str, paths: tuple[str, ...]) -> Ending:
    """Write JSON reports again in another form; html holds several, of any candidates, side by side."""
    from conformance.commands.report import report as perform

    return perform(form, out, paths)


@cli.command("list")
@click.argument("subsystems", nargs=-1, metavar="[SUBSYSTEM]...")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_(subsystems: tuple[str, ...], as_json: bool) -> None:
    """Show subsystems, their clauses, profiles, capabilities, candidates, and the zoo."""
    from conformance.commands import listing

    names = tuple(options.subsystem_name(name) for name in subsystems)
    if as_json:
        put(listing.as_json(names or _everything()))
    elif names:
        say("\n\n".join(listing.subsystem_text(name) for name in names))
    else:
        say(listing.overview(_everything()))


@cli.command()
@click.argument("clause", metavar="CLAUSE")
def explain(clause: str) -> None:
    """Show a clause: its text, its source, what checks it, and which known defects it kills."""
    from conformance.commands import listing

    say(listing.explain(clause, _everything()))


@cli.command()
def demo() -> Ending:
    """Find three defects in designs as they were posted, and explain each by a minimal trace."""
    from conformance.commands.demo import demo as perform

    return perform(say, _everything())


def _everything() -> tuple[str, ...]:
    """Every subsystem that can be loaded; a missing optional package takes one subsystem away, with a word."""
    return options.usable(complain)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the console script. SIGTERM, which a cancelled CI job gets, ends a run like Ctrl-C does."""
    open_missing()
    signal.signal(signal.SIGTERM, _OnSigterm())
    code = invoke(arguments)
    if code == Exit.INCONCLUSIVE:
        _forget_interrupt()
    sys.exit(code)


def _forget_interrupt() -> None:
    """Have Python forget a Ctrl-C that came inside an `exec`, such as that of a dataclass.

    It would end by the signal, whoever has heard it; the next code that is run from a string makes it forget.
    """
    import ctypes

    ctypes.pythonapi.PyRun_SimpleString(b"")


class _OnSigterm:
    """SIGTERM as Ctrl-C; `timeout` sends it twice, to the process and to its group, and means it once."""

    def __init__(self) -> None:
        self.last = -TWICE

    def __call__(self, _number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self.last < TWICE:
            return
        self.last = now
        on_interrupt = signal.getsignal(signal.SIGINT)
        if callable(on_interrupt):
            on_interrupt(signal.SIGINT, frame)
        else:  # a background job of a shell script ignores Ctrl-C, but not this
            raise Terminated


def invoke(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; every error becomes one line."""
    debug = "CONFORMANCE_DEBUG"
    before = os.environ.get(debug)
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--traceback" in words:  # wherever it stands
        words = ["--traceback", *(word for word in words if word != "--traceback")]
    try:
        return _ended(lambda: cli.main(args=words, prog_name="conformance", standalone_mode=False))
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        say(error.ctx.get_help() if error.ctx else str(error))
        return int(Exit.USAGE)
    except click.ClickException as error:
        return _refused(Exit.USAGE, error.format_message())
    except UsageError as error:
        return _refused(Exit.USAGE, str(error))
    except (KeyboardInterrupt, click.Abort):
        return _refused(Exit.INCONCLUSIVE, "interrupted")
    except HarnessError as error:
        return _failed(error, str(error))
    except OSError as error:
        return _failed(error, f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except Exception as error:
        return _failed(error, f"{type(error).__name__}: {error}")
    finally:
        if before is None:
            os.environ.pop(debug, None)


def _ended(command: Callable[[], Any]) -> int:
    ending = command()
    if not isinstance(ending, Ending):
        return int(ending or 0)
    say(f"exit {int(ending.exit)}: {ending.why}")
    return int(ending.exit)


def _refused(code: Exit, message: str) -> int:
    complain(" ".join(message.split()))
    return int(code)


def _failed(error: BaseException, message: str) -> int:
    if os.environ.get("CONFORMANCE_DEBUG"):
        traceback.print_exception(error)
    return _refused(Exit.HARNESS, f"the suite failed: {message}")
