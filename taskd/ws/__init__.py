"""The event log over WebSocket (RFC 6455)."""
