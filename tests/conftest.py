"""Databases for tests: one PostgreSQL for all, a database of its own for each."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import asyncpg
import pytest

from tests.clusters import Cluster

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One PostgreSQL for the session; with xdist, for each worker."""
    cluster = Cluster()
    try:
        cluster.start_now()
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture(scope="session")
def template(cluster: Cluster) -> str:
    """A migrated database, to be cloned. Nothing may stay connected to it."""
    # Imported here: tests that need no database shall run without the store.
    from taskd.store.migrate import migrate

    async def make() -> None:
        await _execute(cluster, 'CREATE DATABASE "template"')
        await migrate(cluster.url_of("template"))

    # A loop of its own: the fixtures' loops end with their test.
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(make())
    finally:
        loop.close()
    return "template"


@pytest.fixture
async def database_url(cluster: Cluster, template: str) -> AsyncIterator[str]:
    """The URL of a fresh, migrated database that is dropped after the test."""
    async for url in _database(cluster, template):
        yield url


@pytest.fixture
async def empty_database_url(cluster: Cluster) -> AsyncIterator[str]:
    """The URL of a fresh, empty database that is dropped after the test."""
    async for url in _database(cluster, "template0"):
        yield url


@pytest.fixture
async def new_cluster() -> AsyncIterator[Callable[[], Awaitable[Cluster]]]:
    """Gives private clusters, started, that the test may stop, start and kill."""
    clusters: list[Cluster] = []

    async def make() -> Cluster:
        clusters.append(Cluster())
        await clusters[-1].start()
        return clusters[-1]

    yield make
    for cluster in clusters:
        cluster.remove()


async def _database(cluster: Cluster, template: str) -> AsyncIterator[str]:
    name = f"test_{next(_numbers)}"
    # FILE_COPY needs two checkpoints, WAL_LOG none: better for small databases.
    await _execute(cluster, f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY wal_log')
    try:
        yield cluster.url_of(name)
    finally:
        await _execute(cluster, f'DROP DATABASE "{name}" WITH (FORCE)')


async def _execute(cluster: Cluster, statement: str) -> None:
    connection = await asyncpg.connect(cluster.url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
