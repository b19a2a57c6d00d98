"""Who calls a running server from the command line, and whom they trust: the flags that say so, and what they say."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from taskd.config import TOKEN_VARIABLE
from taskd.errors import ConfigError
from taskd.tls import Trust


def add_caller(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("--user", metavar="NAME", help="who calls, where the server takes it by their word")
    # No flag has the token itself: everybody on the machine sees what a command is called with.
    parser.add_argument("--token-file", metavar="FILE", help=f"the caller's token (the token itself: {TOKEN_VARIABLE})")
    parser.add_argument("--ca", metavar="FILE", type=Path, help="by TLS: who signs the server's certificate (PEM)")
    parser.add_argument("--cert", metavar="FILE", type=Path, help="the caller's own certificate (PEM)")
    parser.add_argument("--key", metavar="FILE", type=Path, help="its key (PEM)")


def token_of(asked: argparse.Namespace) -> str | None:
    """Return the caller's token, or None where there is none.

    Raises:
        ConfigError: its file can't be read.
    """
    file: str | None = asked.token_file
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        return Path(file).read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"--token-file: can't read {file}: {error}") from None


def trust_of(asked: argparse.Namespace) -> Trust | None:
    """Return how the server and the caller prove who they are, or None where nothing was said of it.

    Raises:
        ConfigError: the flags do not go together.
    """
    if (asked.cert is None) != (asked.key is None) or (asked.ca is None and asked.cert is not None):
        raise ConfigError("--cert and --key go together, and with --ca")
    return None if asked.ca is None else Trust(asked.ca, asked.cert, asked.key)
