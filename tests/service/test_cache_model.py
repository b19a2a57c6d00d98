"""Two processes with caches of their own on one database, against a plain dict: what may a read give?

A read in a process gives a state no older than the last change that this process answered or was told of by the log,
and never one that was replaced longer ago than entries live. The clock and the log stand still until they are moved.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from taskd.cache.memory import MemoryCache
from taskd.domain.codec import encode_task
from taskd.domain.forms import parse_list_query, parse_patch
from taskd.domain.model import NewTask, Role, Task, User
from taskd.errors import Conflict, NotFound
from taskd.runtime.supervisor import Supervisor
from taskd.service.cached import CachedReads, CachedTasks
from taskd.service.ports import Tasks, View
from taskd.service.tasks import TaskService
from taskd.service.views import view_size
from taskd.store.events import EventLog
from taskd.store.pool import Database
from taskd.store.search import SearchStore
from taskd.store.tasks import TaskStore

TTL = 30.0
ADMIN = User("root", Role.ADMIN)
OWNERS = ("ann", "ben")

T = TypeVar("T")
State = dict[str, Any]


class Process:
    """What one process reads and writes with; `position` is how far it has followed the log."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self.plain = TaskService(TaskStore(database), SearchStore(database), lambda: None)
        # Few entries, so that some have to give way.
        self.cache: MemoryCache[View] = MemoryCache(
            Supervisor(), ttl=TTL, entries=6, size=1_000_000, size_of=view_size, clock=clock
        )
        self.reads = CachedReads(self.plain, self.cache)
        self.tasks = CachedTasks(self.plain, self.reads)
        self.log = EventLog(database)

    async def begin(self) -> None:
        self.position = (await self.log.place()).end

    async def follow(self) -> None:
        """Read the log to its end."""
        pending = True
        while pending:
            batch = await self.log.read(self.position, 100)
            self.reads.observe(batch.events)
            self.position = batch.events[-1].key if batch.events else self.position
            pending = bool(batch.events) or batch.pending


class Model(RuleBasedStateMachine):
    """`states` are all states that the store has had, each with the time at which it came."""

    run: Callable[[Awaitable[Any]], Any]
    url: str

    tasks = Bundle("tasks")
    processes = st.sampled_from((0, 1))
    writers = st.sampled_from((0, 1, None))
    owners = st.sampled_from(OWNERS)

    @initialize()
    def begin(self) -> None:
        self.now = 1000.0
        self.states: list[tuple[float, dict[str, State]]] = [(self.now, {})]
        self.answered: dict[tuple[int, str | None], int] = defaultdict(int)
        self.database = Database(self.url)
        self.do(self.database.open())
        self.do(self.database.execute("TRUNCATE tasks, task_states, events"))
        self.world = [Process(self.database, lambda: self.now) for _ in range(2)]
        for process in self.world:
            self.do(process.begin())

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.do(self.database.close())

    def do(self, action: Awaitable[T]) -> T:
        result: T = type(self).run(action)
        return result

    # Changes: of one of the two processes, or (None) of somebody else, a worker say.

    def through(self, writer: int | None) -> Tasks:
        return self.world[0].plain if writer is None else self.world[writer].tasks

    def changed(self, writer: int | None, task_id: UUID, owner: str, task: Task | None) -> None:
        state = dict(self.states[-1][1])
        state.pop(str(task_id), None)
        if task is not None:
            state[str(task_id)] = json.loads(encode_task(task))
        self.states.append((self.now, state))
        if writer is not None:
            for about in (str(task_id), owner, None):
                self.answered[writer, about] = len(self.states) - 1

    @rule(target=tasks, writer=writers, owner=owners, kind=st.sampled_from("xy"))
    def create(self, writer: int | None, owner: str, kind: str) -> UUID:
        user = User(owner)
        task = self.do(self.through(writer).create(user, NewTask("a task", kind)))
        self.changed(writer, task.id, user.name, task)
        return task.id

    @rule(writer=writers, task_id=tasks, title=st.sampled_from(("one", "two")))
    def update(self, writer: int | None, task_id: UUID, title: str) -> None:
        self.change(writer, task_id, lambda through: through.update(ADMIN, task_id, parse_patch({"title": title})))

    @rule(writer=writers, task_id=tasks)
    def cancel(self, writer: int | None, task_id: UUID) -> None:
        self.change(writer, task_id, lambda through: through.cancel(ADMIN, task_id))

    @rule(writer=writers, task_id=tasks)
    def retry(self, writer: int | None, task_id: UUID) -> None:
        self.change(writer, task_id, lambda through: through.retry(ADMIN, task_id))

    @rule(writer=writers, task_id=tasks)
    def delete(self, writer: int | None, task_id: UUID) -> None:
        try:
            task = self.do(self.through(writer).delete(ADMIN, task_id))
        except NotFound:
            return
        self.changed(writer, task_id, task.owner, None)

    def change(self, writer: int | None, task_id: UUID, call: Callable[[Tasks], Awaitable[Task]]) -> None:
        try:
            task = self.do(call(self.through(writer)))
        except (Conflict, NotFound):
            return
        self.changed(writer, task_id, task.owner, task)

    # What else happens.

    @rule(seconds=st.sampled_from((0.5, 10.0, TTL)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(process=processes)
    def follow(self, process: int) -> None:
        self.do(self.world[process].follow())
        last = len(self.states) - 1
        about = {name for _, state in self.states for name in state} | set(OWNERS)
        for name in (*about, None):
            self.answered[process, name] = last

    # Reads.

    def allowed(self, process: int, about: str | None) -> list[dict[str, State]]:
        """Return the states that a read may give."""
        gone = max((n for n, (since, _) in enumerate(self.states) if since <= self.now - TTL), default=0)
        return [state for _, state in self.states[max(gone, self.answered[process, about]) :]]

    @rule(process=processes, task_id=tasks)
    def read(self, process: int, task_id: UUID) -> None:
        try:
            found = json.loads(self.do(self.world[process].reads.task(ADMIN, task_id)).body)
        except NotFound:
            found = None
        assert found in [state.get(str(task_id)) for state in self.allowed(process, str(task_id))]

    @rule(
        process=processes,
        name=st.sampled_from((*OWNERS, None)),
        statuses=st.sampled_from(((), ("new",), ("cancelled",), ("new", "cancelled"))),
        kind=st.sampled_from((None, "x")),
    )
    def read_page(self, process: int, name: str | None, statuses: tuple[str, ...], kind: str | None) -> None:
        pairs = [("status", status) for status in statuses] + ([("kind", kind)] if kind else [])
        pairs += [("owner", name)] if name else []
        view = self.do(self.world[process].reads.page(ADMIN, parse_list_query(ADMIN, pairs)))

        def shown(state: dict[str, State]) -> list[State]:
            tasks = sorted(state.values(), key=lambda task: (task["created_at"], task["id"]), reverse=True)
            return [
                task
                for task in tasks
                if name in (None, task["owner"]) and kind in (None, task["kind"])
                and (not statuses or task["status"] in statuses)
            ]  # fmt: skip

        assert json.loads(view.body)["tasks"] in [shown(state) for state in self.allowed(process, name)]


@pytest.mark.timeout(600)
def test_a_read_gives_what_it_may(database_url: str) -> None:
    with asyncio.Runner() as runner:

        class Machine(Model):
            url = database_url
            run = staticmethod(runner.run)

        slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
        run_state_machine_as_test(
            Machine,
            settings=settings(max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=slow),
        )
