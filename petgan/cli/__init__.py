"""The command line: one module a command, imported only when it is called.

A command's module has a docstring (its help, with an example), ``add_arguments(parser)`` and
``run(args)``, which returns nothing or an exit code.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from petgan import __version__
from petgan.errors import EXIT_FAILURE, PetganError

# Name: (module, one line of help), in the order in which a study uses them.
COMMANDS = {
    "demo": ("demo", "the whole road on synthetic patients: 15 minutes on 2 cores"),
    "doctor": ("doctor", "what this machine can and cannot do, and what to install"),
    "container": ("container", "build the image that a cluster's runs are trained in"),
    "phantom": ("phantom", "make synthetic patients as DICOM, GIF and PNG files"),
    "ingest": ("ingest", "turn image files into a dataset"),
    "dataset": ("dataset", "look at a dataset, or check it"),
    "grid": ("grid", "list the points of a grid file and their state"),
    "submit": ("submit", "train the points of a grid"),
    "status": ("status", "how far the runs of an experiment are"),
    "logs": ("logs", "print the log of a run"),
    "retry": ("retry", "start the failed runs of an experiment again"),
    "cancel": ("cancel", "stop the runs of an experiment"),
    "run": ("run", "train one point in the foreground"),
    "evaluate": ("evaluate", "score the finished runs of an experiment"),
    "best": ("best", "which configuration is the best, and how sure that is"),
    "report": ("report", "write the tables, plots and page of an experiment"),
    "transfer": ("transfer", "train on, from the best point of another experiment"),
    "synthesize": ("synthesize", "make a synthetic dataset from a finished run"),
}

_OF_PATIENTS = ("ingest", "dataset")  # they read files whose names may be patients'

_WIDTH = max(map(len, COMMANDS))
_LIST = "\n".join(f"  {name:<{_WIDTH}}  {line}" for name, (_, line) in COMMANDS.items())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 for a failure, 2 for the user's mistake."""
    argv = list(sys.argv[1:] if argv is None else argv)
    top = argparse.ArgumentParser(
        prog="petgan",
        usage="petgan COMMAND ...",
        description="Synthetic breast images from few real ones, at the scale of a cluster.",
        epilog=f"commands:\n{_LIST}\n\n'petgan COMMAND --help' explains one, with an example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"petgan {__version__}")
    top.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    if not argv:
        top.print_help()
        return 2
    name = top.parse_args(argv[:1]).command
    try:
        module, parser = command(name)
        args = parser.parse_args(argv[1:])
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        return module.run(args) or 0
    except PetganError as error:
        print(f"petgan {name}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"\npetgan {name}: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe has gone (| head): not a failure of ours.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except OSError as error:
        if name not in _OF_PATIENTS:
            raise
        # What the system says may name a file; its number does not.
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        print(f"petgan {name}: a file or folder cannot be used: {reason}", file=sys.stderr)
        return EXIT_FAILURE


def command(name: str) -> tuple[ModuleType, argparse.ArgumentParser]:
    """Import the module of a command and make its parser."""
    module = importlib.import_module(f"petgan.cli.{COMMANDS[name][0]}")
    parser = argparse.ArgumentParser(
        prog=f"petgan {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    return module, parser
