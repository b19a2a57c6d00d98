"""These tests run on each event loop that taskd serves on."""

from tests.loops import pytest_asyncio_loop_factories as pytest_asyncio_loop_factories
