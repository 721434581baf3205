"""The command line: ``kerasmemwatch demo | run | show | report | compare | doctor``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kerasmemwatch._version import __version__
from kerasmemwatch.errors import MemWatchError

if TYPE_CHECKING:
    from kerasmemwatch.reports.report import Report

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments; those of the process if ``None``.

    Returns:
        The exit code: 0, or 2 for an error that the user can fix.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["run"] and arguments[1:2] not in (["-h"], ["--help"]):
            from kerasmemwatch.commands.run import launch

            log_dir, target = launch.split_arguments(arguments[1:])
            return launch.run(target, log_dir)
        options = _parser().parse_args(arguments)
        status = int(options.command(options))
        print(end="", flush=True)  # as Python ends, an error of it could not be caught
        return status
    except MemWatchError as error:
        print(f"kerasmemwatch: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `kerasmemwatch show logs | head`
        _discard_output()
        return 0
    except OSError as error:  # a file that cannot be read
        print(f"kerasmemwatch: {error}", file=sys.stderr)
        return 2


def _discard_output() -> None:
    """Let what is still buffered go nowhere, as Python's documentation of ``signal`` has it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kerasmemwatch", description="Exact memory measurements for Keras training.")
    parser.add_argument("--version", action="version", version=f"kerasmemwatch {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="train a small CNN on real data and show its memory")
    demo.add_argument("--log-dir", default="logs", help="where to record (default: %(default)s)")
    demo.add_argument("--epochs", type=_at_least_one, default=5, help="epochs to train (default: %(default)s)")
    demo.set_defaults(command=_demo)

    run = commands.add_parser(
        "run",
        help="run a script with exact counting and a MemoryWatch on every fit",
        usage="kerasmemwatch run [--log-dir DIR] SCRIPT.py [ARGS...]\n"
        "       kerasmemwatch run [--log-dir DIR] -m MODULE [ARGS...]",
    )
    run.add_argument("--log-dir", default="logs", help="where to record (default: %(default)s)")
    run.set_defaults(command=None)

    show = commands.add_parser("show", help="print the report of a recorded run")
    show.add_argument("log_dir", metavar="LOGDIR")
    show.add_argument("--run", metavar="NAME", help="the run (default: the newest)")
    show.add_argument("--device", metavar="NAME", help="show the live set on this device (default: the peak's)")
    show.add_argument("--all", action="store_true", help="all layers, figures and notes")
    show.add_argument("--json", action="store_true", help="as JSON")
    show.add_argument("--list", action="store_true", help="the names of the runs, oldest first")
    show.set_defaults(command=_show)

    report = commands.add_parser("report", help="write the report of a recorded run as one HTML file")
    report.add_argument("log_dir", metavar="LOGDIR")
    report.add_argument("-o", "--output", metavar="FILE", default="report.html", help="(default: %(default)s)")
    report.add_argument("--run", metavar="NAME", help="the run (default: the newest)")
    report.add_argument("--device", metavar="NAME", help="the device it shows first (default: the peak's)")
    report.add_argument("--theme", choices=("auto", "light", "dark"), default="auto", help="(default: %(default)s)")
    report.set_defaults(command=_report)

    compare = commands.add_parser("compare", help="show how the memory of two runs differs")
    compare.add_argument("a", metavar="A", help="a log dir (its newest run), or the directory of a run")
    compare.add_argument("b", metavar="B", help="likewise")
    compare.add_argument("--json", action="store_true", help="as JSON")
    compare.set_defaults(command=_compare)

    doctor = commands.add_parser("doctor", help="show what can be measured here, and how to close each gap")
    doctor.set_defaults(command=_doctor)
    return parser


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, received {text}")
    return number


def _demo(options: argparse.Namespace) -> int:
    from kerasmemwatch.commands.demo import run_demo

    run_demo(options.log_dir, epochs=options.epochs)
    return 0


def _show(options: argparse.Namespace) -> int:
    from kerasmemwatch.recording import runs, unreadable_runs

    if options.list:
        for name in map(_on_one_line, runs(options.log_dir)):
            print(_writable(name))
        for name, problem in unreadable_runs(options.log_dir).items():
            print(f"kerasmemwatch: {_on_one_line(f'the run {name!r} cannot be read: {problem}')}", file=sys.stderr)
        return 0
    report = _loaded(options)
    if options.json:
        print(json.dumps(report.to_dict(), indent=2))
        return 0
    from kerasmemwatch.reports.text.report_text import print_report

    print_report(report, sys.stdout, everything=options.all)
    return 0


def _report(options: argparse.Namespace) -> int:
    _loaded(options).to_html(options.output, theme=options.theme)
    print(f"Wrote {_writable(options.output)}")
    return 0


def _loaded(options: argparse.Namespace) -> Report:
    from kerasmemwatch.recording import load

    report = load(options.log_dir, options.run).report
    return report if options.device is None else report.on_device(options.device)


def _compare(options: argparse.Namespace) -> int:
    from kerasmemwatch.comparison import compare

    found = compare(options.a, options.b)
    print(json.dumps(found.to_dict(), indent=2) if options.json else _writable(str(found)))
    return 0


def _writable(text: str) -> str:
    """Replace characters that standard output cannot encode."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _on_one_line(name: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in name)


def _doctor(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from kerasmemwatch.commands.doctor import diagnose

    table = Table(box=None, pad_edge=False)
    for heading in ("what", "measured", "detail", "how to close the gap"):
        table.add_column(heading, overflow="fold")
    for finding in diagnose():
        table.add_row(*map(Text, (finding.what, finding.state, finding.detail, finding.remedy)))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    return 0
