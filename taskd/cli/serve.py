"""`taskd serve`: the server, in the role that the settings give it."""

from __future__ import annotations

import argparse
import logging
import sys

from taskd import config, log
from taskd.app import Taskd
from taskd.cli.process import run as run_server
from taskd.cli.process import run_until_signal
from taskd.runtime import descriptors

logger = logging.getLogger("taskd")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting."""
    config.add_flags(parser)


def run(asked: argparse.Namespace) -> int:
    """Serve until a signal."""
    settings = config.from_command_line(asked)
    log.setup(settings.log, settings.log_level)
    descriptors.raise_limit()
    # As `python -m` does: handlers are found beside where the command is called.
    sys.path.insert(0, "")
    app = Taskd.with_settings(settings)

    async def started() -> None:
        grpc = f" and gRPC on {app.grpc_address}" if app.grpc_address else ""
        scheme = "http" if settings.tls_cert is None else "https"
        logger.info("serving on %s://%s%s", scheme, app.http_address, grpc)

    return run_server(run_until_signal(app, started))
