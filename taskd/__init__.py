"""taskd: a task server in one small process."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskd.app import Taskd
    from taskd.domain.model import Task
    from taskd.domain.retry import Retry, RetryPolicy
    from taskd.worker.context import Context
    from taskd.worker.registry import handler

__all__ = ["Context", "Retry", "RetryPolicy", "Task", "Taskd", "__version__", "handler"]

__version__ = "0.1.0"

# Loaded at first use: a command that needs only one of them does not wait for the rest.
_HOMES = {
    "Taskd": "taskd.app",
    "Task": "taskd.domain.model",
    "Retry": "taskd.domain.retry",
    "RetryPolicy": "taskd.domain.retry",
    "Context": "taskd.worker.context",
    "handler": "taskd.worker.registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
