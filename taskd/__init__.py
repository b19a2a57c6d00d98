"""taskd: a task server in one small process."""

__version__ = "0.1.0"
