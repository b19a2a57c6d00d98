"""Certificates for tests: an authority, servers and clients that it signed."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Authority:
    """Signs certificates into files of a directory."""

    def __init__(self, directory: Path) -> None:
        self._ca = trustme.CA()
        self._directory = directory
        self.file = directory / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def sign(self, name: str, *hosts: str) -> tuple[Path, Path]:
        """Write a certificate and its key, anew if they are there; return their files."""
        made = self._ca.issue_cert(*(hosts or ("127.0.0.1", "localhost")))
        cert, key = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        key.write_bytes(made.private_key_pem.bytes())
        return cert, key

    def context(self, client: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """Return a client's side that trusts this authority, and shows a certificate if one is given."""
        context = ssl.create_default_context(cafile=str(self.file))
        if client is not None:
            context.load_cert_chain(*map(str, client))
        return context
