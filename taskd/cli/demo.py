"""`taskd demo`: everything on one machine, with nothing set up: its own PostgreSQL, sample handlers, sample tasks."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from taskd import config, log
from taskd.app import Taskd
from taskd.cli.process import run as run_server
from taskd.cli.process import run_until_signal
from taskd.cli.screen import event_line, has_colours
from taskd.domain.event import Event

SAMPLES: Sequence[Mapping[str, Any]] = (
    {"title": "Say hello", "kind": "echo", "payload": {"hello": "world"}, "description": "Returns its payload."},
    {"title": "Compress the video", "kind": "sleep", "payload": {"seconds": 10}, "description": "Reports progress."},
    {"title": "Сходить за отчётом", "kind": "flaky", "payload": {"failures": 2}, "description": "Fails twice."},
    {"title": "Divide by zero", "kind": "fail", "max_attempts": 2, "description": "Always fails."},
)  # fmt: skip

EVERY = 15.0
"""Seconds between sample tasks, after the first ones."""

USER = "demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting; the demo has other defaults for a few."""
    config.add_flags(parser)


def run(asked: argparse.Namespace) -> int:
    """Run the demo until a signal."""
    defaults = {"auth": "none", "handlers": ("taskd.worker.samples",), "log_level": "error"}
    settings = config.from_command_line(asked, defaults)
    log.setup(settings.log, settings.log_level)
    # Samples fail on purpose, and the screen shows it: their tracebacks would only hide what happens.
    logging.getLogger("taskd.worker").setLevel(logging.CRITICAL)
    app = Taskd.with_settings(settings)
    print("taskd demo: starting …", flush=True)

    async def started() -> None:
        print(banner(app), flush=True)
        colours = has_colours()

        def show(events: Sequence[Event]) -> None:
            for event in events:
                print(event_line(event, colours), flush=True)

        app.parts.feed.subscribe(show)
        app.parts.supervisor.spawn(keep_busy(app), "demo tasks")

    code = run_server(run_until_signal(app, started))
    print("taskd demo: stopped; start it again and its tasks are still there")
    return code


def banner(app: Taskd) -> str:
    """Return where everything is."""
    at = app.http_address
    where = app.data_dir or "the database that was given"
    lines = {
        "data": f"{where}",
        "dashboard": f"http://{at}/?user={USER}",
        "tasks": f"http://{at}/tasks?user={USER}",
        "events": f"ws://{at}/ws?user={USER}   (or http://{at}/events?user={USER})",
        "metrics": f"http://{at}/metrics   (or http://{at}/metrics?format=json)",
        "health": f"http://{at}/readyz",
        "OpenAPI": f"http://{at}/openapi.json",
    }
    if app.grpc_address:
        lines["gRPC"] = f"{app.grpc_address}   (metadata x-taskd-user: {USER})"
    body = "\n".join(f"  {name:10} {text}" for name, text in lines.items())
    create = f"""curl -s 'http://{at}/tasks?user={USER}' -d '{{"title": "My task", "kind": "echo"}}'"""
    create += " -H Content-Type:application/json"
    return f"\n{body}\n\nCreate a task:\n  {create}\n\nWhat happens now (Ctrl-C stops):"


async def keep_busy(app: Taskd) -> None:
    """Create the sample tasks, then one of them every few seconds."""
    number = 0
    while True:
        sample = SAMPLES[number % len(SAMPLES)]
        await app.tasks.create(owner=USER, **sample)
        number += 1
        if number >= len(SAMPLES):
            await asyncio.sleep(EVERY)
