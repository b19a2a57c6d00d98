"""HTTP/1.1 without I/O: bytes in, events out, no socket, no clock (RFC 9110, RFC 9112)."""
