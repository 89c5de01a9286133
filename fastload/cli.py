"""The command line: `fastload VERB ...`. A verb is a module of fastload/prepare, imported only when called.

In: the words after `fastload`. Out: a report on stdout (text, or one JSON object with --json), progress and
errors on stderr. Promised: exit code 0 for success, 1 when the data has a problem or a file cannot be read or
written, 2 when the command is wrong, 130 after Ctrl-C; our own errors are one line, never a traceback;
`fastload --help` imports nothing heavy.

A verb's module has `add_options(parser)` and a function of the verb's name, which is called with the options
that were given, and returns a report. It may also take `progress` (a bar on stderr) and `started` (the
time.monotonic() at which the command started). A report has `to_dict()`, `render() -> str` and, where data
can be at fault, `problems: int`; one that has an `error: str` is printed before its error.
"""

import argparse
import os
import sys
import time
from importlib import import_module

from fastload import __version__
from fastload.errors import ConfigError, FastloadError
from fastload.shortage import naming_shortage

VERBS = {
    "demo": "run the default training pipeline for a few seconds, measure it, and draw a contact sheet",
    "index": "build or refresh the indexes of shards",
    "info": "count samples, sizes and extensions, and show a few samples",
    "check": "read and decode every sample of a source, or of a ledger, and list the bad ones",
    "bench": "measure this source through fastload and through torch DataLoader + Pillow, side by side",
}
SUCCESS, DATA_PROBLEM, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code; `arguments` are sys.argv[1:] unless given."""
    started = time.monotonic()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with naming_shortage("fastload cannot go on"):
            return _run(arguments, started)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Nobody reads our output any more (`fastload info x | head`). Python flushes stdout again at exit,
        # which would print an error, so stdout is redirected to /dev/null.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SUCCESS
    except (FastloadError, OSError) as error:
        _print_error(str(error) or type(error).__name__)
        return USAGE if isinstance(error, ConfigError) else DATA_PROBLEM


def _run(arguments: list[str], started: float) -> int:
    verb = next((word for word in arguments if not word.startswith("-")), None)
    parser, subparsers = _parser()
    if verb in VERBS:
        module = import_module(f"fastload.prepare.{verb}")
        subparser = subparsers.choices[verb]
        module.add_options(subparser)
        what = "print the report as one JSON object"
        subparser.add_argument("--json", action="store_true", default=False, help=what)
    try:
        options = vars(parser.parse_args(arguments))
    except SystemExit as stop:  # argparse has printed its help or its error
        return int(stop.code or 0)
    if options.pop("verb") is None:
        parser.print_help(sys.stderr)
        return USAGE
    as_json = options.pop("json")
    report = _call(verb, getattr(module, verb), options, started)
    print(_printable(_as_json(report) if as_json else report.render()), flush=True)
    error = getattr(report, "error", None)
    if error:
        _print_error(error)
    return DATA_PROBLEM if error or getattr(report, "problems", 0) else SUCCESS


def _call(verb: str, function, options: dict, started: float):
    from inspect import signature

    from fastload.prepare.common.progress import Progress

    with Progress(verb) as progress:
        offered = {"progress": progress, "started": started}
        taken = offered.keys() & signature(function).parameters.keys()
        return function(**options, **{name: offered[name] for name in taken})


def _parser():
    parser = argparse.ArgumentParser(
        prog="fastload",
        description="A high-throughput, exactly resumable loader of images for training generative models.",
        epilog="fastload VERB --help tells more. Exit codes: 0 success, 1 bad data, 2 wrong usage.",
    )
    parser.add_argument("--version", action="version", version=f"fastload {__version__}")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB")
    for verb, what in VERBS.items():
        description = what[0].upper() + what[1:] + "."
        # An option that was not given is left to the default of the verb's function.
        subparsers.add_parser(verb, help=what, description=description, argument_default=argparse.SUPPRESS)
    return parser, subparsers


def _printable(text: str) -> str:
    """Bytes of file names that are not valid text are shown as escapes, which JSON knows as well."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _print_error(message: str) -> None:
    print("fastload: error:", " ".join(message.split()), file=sys.stderr)


def _as_json(report) -> str:
    import json

    return json.dumps(report.to_dict(), indent=2, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
