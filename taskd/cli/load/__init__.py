"""The load that `taskd bench` puts on a server, and what it makes of the answers."""
