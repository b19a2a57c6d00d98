"""taskd for other programs, over gRPC: `Client` has tasks done, `Worker` does them."""

from taskd.client.client import Client
from taskd.client.watch import Events, EventsMissed
from taskd.client.worker import Worker
from taskd.tls import Trust

__all__ = ["Client", "Events", "EventsMissed", "Trust", "Worker"]
