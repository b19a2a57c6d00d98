"""Connections to a taskd elsewhere, and what both sides agree on about them."""

from __future__ import annotations

import json

import grpc

from taskd import __version__
from taskd.tls import Tls, Trust

MAX_REQUEST = 4 * 1024 * 1024
"""Bytes of a message to a server: gRPC's own default, which holds a thousand tasks of the usual size."""

MAX_ANSWER = 64 * 1024 * 1024
"""Bytes of a message from a server: a page of large tasks may be more than the 4 MiB that a client takes by default."""

KEEPALIVE = 20.0
"""Seconds without a frame after which a client asks whether the server is there."""

KEEPALIVE_ANSWER = 5.0
"""Seconds that the answer to that may take."""

READS = ("GetTask", "ListTasks", "SearchTasks", "ListTaskEvents", "ListEvents")
"""Calls that change nothing: tried again when a server goes away under them."""

_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "taskd.v1.TaskService", "method": method} for method in READS],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
"""gRFC A6 (retries) and A2 (service config)."""

_OPTIONS = {
    "grpc.service_config": json.dumps(_SERVICE_CONFIG),
    "grpc.enable_retries": 1,
    # Core's own pauses between attempts to connect grow to two minutes.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 1000,
    "grpc.max_reconnect_backoff_ms": 1000,
    "grpc.dns_min_time_between_resolutions_ms": 1000,
    "grpc.keepalive_time_ms": round(KEEPALIVE * 1000),
    "grpc.keepalive_timeout_ms": round(KEEPALIVE_ANSWER * 1000),
    # An answer is waited for by this limit, a minute by default, and not by the one above where that is shorter.
    "grpc.http2.ping_timeout_ms": round(KEEPALIVE_ANSWER * 1000),
    # A client that has nothing to say would stop asking after two times: a watch says nothing for hours.
    "grpc.http2.max_pings_without_data": 0,
    # Asked also while no call is open: one that has just been given up must not put it off.
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.max_receive_message_length": MAX_ANSWER,
    "grpc.max_send_message_length": MAX_REQUEST,
    # Channels of one process that name one address would share their connection, and its pauses.
    "grpc.use_local_subchannel_pool": 1,
    "grpc.primary_user_agent": f"taskd/{__version__}",
}
"""Of gRPC core: include/grpc/impl/channel_arg_names.h."""


def open_channel(target: str, resolver: str = "", trust: Trust | None = None) -> grpc.aio.Channel:
    """Return a channel to a taskd; it connects with the first call, and again whenever that is needed.

    Args:
        target: `host:port`. A name with several addresses: calls go to them in turn.
        resolver: the DNS server that is asked, as `address:port`; empty: those of the system.
        trust: whose servers are believed, and what they are shown; None: no TLS.

    Raises:
        ConfigError: a file of `trust` can't be read.
    """
    address, options = f"dns://{resolver}/{target}", list(_OPTIONS.items())
    if trust is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(*trust.read()), options=options)


def server_credentials(tls: Tls) -> grpc.ServerCredentials:
    """Return what a server shows at each handshake: its certificate as it is by then."""

    def configuration() -> grpc.ServerCertificateConfiguration:
        pem = tls.pem
        return grpc.ssl_server_certificate_configuration([(pem.key, pem.cert)], pem.ca)

    return grpc.dynamic_ssl_server_credentials(
        configuration(), configuration, require_client_authentication=tls.pem.ca is not None
    )
