"""TLS: the certificate that a server shows, who its clients must be signed by, and both as they are renewed.

Files are read when they are asked to be, and tried together before anything is changed, so that a renewal that went
wrong leaves what was there.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from taskd.config import Settings
from taskd.errors import ConfigError

TRIES = 5
"""Times that files are read which are changed meanwhile: the standard library loads a certificate only from files."""


@dataclass(frozen=True, slots=True)
class Pem:
    """The contents of PEM files."""

    cert: bytes
    key: bytes = field(repr=False)
    ca: bytes | None = None
    """None: the other side is not asked for a certificate."""


class Trust(NamedTuple):
    """A client's side.

    Args:
        ca: who signs the certificates of servers.
        cert, key: the client's own certificate chain and its key, for servers that want one.
    """

    ca: Path
    cert: Path | None = None
    key: Path | None = None

    def read(self) -> tuple[bytes, bytes | None, bytes | None]:
        """Return the contents of the files: authorities, key, certificate.

        Raises:
            ConfigError: one can't be read.
        """
        ca = _read(self.ca, "the file of certificate authorities")
        if self.cert is None or self.key is None:
            return ca, None, None
        return ca, _read(self.key, "the key"), _read(self.cert, "the certificate")


class Tls:
    """A server's side.

    Args:
        cert, key: its certificate chain, the own one first, and its private key.
        client_ca: who signs the certificates that clients must show; None: they need none.

    Raises:
        ConfigError: a file can't be read, or they don't go together; the message names the setting.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None) -> None:
        self._cert = cert
        self._key = key
        self._client_ca = client_ca
        self.context, self.pem = self._load()

    @property
    def expires(self) -> datetime:
        """When the certificate ends."""
        return not_after(self.pem.cert)

    def reload(self) -> None:
        """Read the files again; who is connected stays so.

        Raises:
            ConfigError: as when it was made; what was read before stays in use.
        """
        self.context, self.pem = self._load()

    def _load(self) -> tuple[ssl.SSLContext, Pem]:
        for _ in range(TRIES):
            found = self._load_once()
            if self._files() == (found[1].cert, found[1].key):
                return found
        raise ConfigError("TASKD_TLS_CERT and TASKD_TLS_KEY: are changing all the time")

    def _files(self) -> tuple[bytes, bytes]:
        return _read(self._cert, "TASKD_TLS_CERT"), _read(self._key, "TASKD_TLS_KEY")

    def _load_once(self) -> tuple[ssl.SSLContext, Pem]:
        ca = None if self._client_ca is None else _read(self._client_ca, "TASKD_TLS_CLIENT_CA")
        pem = Pem(*self._files(), ca)
        # TLS 1.2 with forward secrecy and up, by Python's defaults (ssl.create_default_context).
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        context.options |= ssl.OP_NO_RENEGOTIATION
        try:
            # The password is asked for on the terminal, unless it is given: a server has nobody to answer.
            context.load_cert_chain(self._cert, self._key, password="")
        except (OSError, ValueError) as error:
            raise ConfigError(f"TASKD_TLS_CERT and TASKD_TLS_KEY: {_why(error)}") from None
        if ca is not None:
            try:
                context.load_verify_locations(cadata=ca.decode("ascii"))
            except (ssl.SSLError, ValueError) as error:
                raise ConfigError(f"TASKD_TLS_CLIENT_CA: {_why(error)}") from None
            context.verify_mode = ssl.CERT_REQUIRED
        return context, pem


def not_after(pem: bytes) -> datetime:
    """Return when a PEM file's first certificate ends; the standard library has no way to ask."""
    text = pem.decode("ascii", "replace")
    begin = text.index(ssl.PEM_HEADER)
    der = ssl.PEM_cert_to_DER_cert(text[begin : text.index(ssl.PEM_FOOTER, begin) + len(ssl.PEM_FOOTER)])
    # RFC 5280 4.1: within the certificate and its first part; after version, number, algorithm and issuer, the two ends
    # of its validity.
    _, at, _ = _element(der, 0)
    _, at, _ = _element(der, at)
    tag, _, end = _element(der, at)
    # A version is only there when it is not 1.
    for _ in range(3 if tag == 0xA0 else 2):
        _, _, end = _element(der, end)
    _, at, _ = _element(der, end)
    _, _, at = _element(der, at)
    tag, begin, end = _element(der, at)
    # RFC 5280 4.1.2.5: UTCTime has two digits of the year, those below 50 of this century; GeneralizedTime four.
    digits = der[begin:end].decode("ascii")
    year = ("20" if digits[:2] < "50" else "19") if tag == 0x17 else ""
    return datetime.strptime(year + digits, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Return the tag of the element at a place, and where its contents begin and end (X.690 8.1)."""
    length = der[at + 1]
    begin = at + 2
    if length & 0x80:
        begin += length & 0x7F
        length = int.from_bytes(der[at + 2 : begin])
    return der[at], begin, begin + length


def tls_of(settings: Settings) -> Tls | None:
    """Return the server's side, as it is set; None: no TLS."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Tls(settings.tls_cert, settings.tls_key, settings.tls_client_ca)


def upstream_trust(settings: Settings) -> Trust | None:
    """Return a gateway's side towards its upstream, as it is set; None: no TLS."""
    return None if settings.upstream_ca is None else Trust(settings.upstream_ca, settings.tls_cert, settings.tls_key)


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{what}: can't read {path}: {error.strerror}") from None


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return f"are no certificate and its key ({reason.lower().replace('_', ' ')})" if reason else "can't be read as PEM"
