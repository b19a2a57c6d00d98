"""`taskd openapi`: the description of the REST calls, as `GET /openapi.json` gives it."""

from __future__ import annotations

import argparse
import json

from taskd.web.application import description


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(asked: argparse.Namespace) -> int:
    """Print it."""
    print(json.dumps(description(), indent=2, ensure_ascii=False))
    return 0
