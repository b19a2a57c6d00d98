"""The commands: one file each, imported only when it is asked for."""

from __future__ import annotations

import argparse
import gc
import importlib
import sys
from collections.abc import Sequence

from taskd import __version__
from taskd.errors import ConfigError, Invalid, TaskdError, Unavailable
from taskd.runtime.loading import no_collection

COMMANDS = {
    "demo": "run everything with an embedded PostgreSQL and sample handlers",
    "serve": "run the server",
    "migrate": "bring a database's schema up to date",
    "check": "check the configuration and the database, and give advice",
    "token": "make, list and revoke the tokens that callers show",
    "health": "ask the server on this machine whether it is ready",
    "task": "create, read, find and follow tasks of a running server",
    "bench": "measure a running server: REST, queue and sockets",
    "openapi": "print the OpenAPI document",
}

DONE, FAILED, USAGE, UNREACHABLE = 0, 1, 2, 3
"""Exit codes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="taskd", description="A task server in one small process.")
    parser.add_argument("--version", action="version", version=f"taskd {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    named = words[:1] if set(words[:1]) & COMMANDS.keys() else []
    # Only the command that runs is made and imported: a start should not wait for the others.
    for name in named or COMMANDS:
        summary = COMMANDS[name]
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if named:
            with no_collection():
                module = importlib.import_module(f"taskd.cli.{name}")
                # It is there to stay, so no later collection needs to look at it.
                gc.freeze()
            module.add_arguments(command)
    asked = parser.parse_args(words)
    try:
        code: int = importlib.import_module(f"taskd.cli.{asked.command}").run(asked)
    except (ConfigError, Invalid) as error:
        _tell(error)
        return USAGE
    except Unavailable as error:
        _tell(error)
        return UNREACHABLE
    except TaskdError as error:
        _tell(error)
        return FAILED
    except KeyboardInterrupt:
        return 130
    return code


def _tell(error: TaskdError) -> None:
    """Print an error. Its words may be another's, a server's or those of an address."""
    from taskd.cli.screen import printable

    print("\n".join(map(printable, f"taskd: {error}".split("\n"))), file=sys.stderr)
