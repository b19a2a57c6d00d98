"""`taskd health`: ask the server on this machine how it is, as a container's health check does.

It is called with the settings of that server, which say where it listens; nothing of the server is loaded for it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

from taskd import config
from taskd.config import Settings
from taskd.errors import ConfigError, Unavailable
from taskd.settings import Address

ANSWER_WITHIN = 2.0
"""Seconds; a server answers this from memory."""

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where to ask a server that listens on all addresses."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting, so that `health` is called as `serve` is."""
    config.add_flags(parser)
    parser.add_argument("--live", action="store_true", help="Ask whether it lives, whatever its parts say.")


def run(asked: argparse.Namespace) -> int:
    """Print what each part says; 0 when the server is ready, 1 when it is not, 3 when it does not answer."""
    settings = config.from_command_line(asked)
    address = settings.http
    if not address.port:
        raise ConfigError("http: must name a port, or nobody knows where the server is")
    status, answer = ask(address, "/livez" if asked.live else "/readyz", _context(settings))
    print("\n".join(lines(answer)) or status)
    return 0 if status == 200 else 1


def _context(settings: Settings) -> ssl.SSLContext | None:
    """Return how to ask a server that has a certificate. It is on this machine, so it need not prove who it is."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if settings.tls_client_ca is not None:
        try:
            context.load_cert_chain(settings.tls_cert, settings.tls_key, password="")
        except (OSError, ValueError) as error:
            raise ConfigError(f"TASKD_TLS_CERT and TASKD_TLS_KEY: {error}") from None
    return context


def ask(address: Address, path: str, context: ssl.SSLContext | None = None) -> tuple[int, Mapping[str, Any]]:
    """Return the status and the body of what a server answers.

    Args:
        context: for TLS; None: without.

    Raises:
        Unavailable: nobody does.
    """
    host = _EVERYWHERE.get(address.host, address.host)
    connection = (
        http.client.HTTPConnection(host, address.port, timeout=ANSWER_WITHIN)
        if context is None
        else http.client.HTTPSConnection(host, address.port, timeout=ANSWER_WITHIN, context=context)
    )
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = json.loads(answer.read())
        return answer.status, body if isinstance(body, dict) else {}
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Unavailable(f"no taskd answers on {address}: {error}") from None
    finally:
        connection.close()


def lines(answer: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each part that a server tells of."""
    for name, part in answer.get("parts", {}).items():
        yield f"{'ok  ' if part['ok'] else 'FAIL'}  {name}: {part['detail']}"
