"""What a search finds, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskd.domain.forms import parse_patch
from taskd.domain.highlight import search_text
from taskd.domain.model import NewTask, Status, Task
from taskd.domain.search import HINT, SearchPage, SearchQuery
from taskd.errors import ConfigError, Invalid, Unavailable
from taskd.metrics.catalog import Catalog
from taskd.store.pool import Database
from taskd.store.search import SearchStore, configure, configured
from taskd.store.statements import load
from taskd.store.tasks import TaskStore
from tests.store.conftest import Maker
from tests.waiting import eventually


@pytest.fixture
def store(database: Database) -> SearchStore:
    return SearchStore(database)


async def titles(store: SearchStore, text: str, **fields: object) -> list[str]:
    query = SearchQuery("ann", text)._replace(**fields)
    return [found.task.title for found in (await store.search(query)).results]


async def pages(store: SearchStore, query: SearchQuery) -> AsyncIterator[SearchPage]:
    while True:
        page = await store.search(query)
        yield page
        if page.next_cursor is None:
            return
        query = query._replace(cursor=page.next_cursor)


MORPHOLOGY = [
    ("Отчёт за ноябрь", "отчёт"),
    ("Отчёт за ноябрь", "отчёты"),
    ("Отче\u0308т за ноябрь", "отчёты"),
    ("Отчёт за ноябрь", "отче\u0308ты"),
    ("Настрои\u0306ка", "настройки"),
    ("Отчёт за ноябрь", "отчета"),
    ("Отчеты за ноябрь", "отчётами"),
    ("ОТЧЁТ ЗА НОЯБРЬ", "отчёт"),
    ("Отчёт за ноябрь", "ОТЧЁТЫ"),
    ("Настроить сервер", "настроил"),
    ("Большие красные машины", "большая машина"),
    ("Ёлка", "елки"),
    ("Елка", "ёлкой"),
    ("Resize the image", "resizing"),
    ("Resizing images", "resize"),
    ("Resized", "RESIZES image or resize"),
    ("Сверка по invoice 17", "сверки invoices"),
    ("Проверить e-mail клиента", "e-mail"),
    ("Задача №42", "42"),
    ("Version 1.2.3", "1.2.3"),
    ("Страница <b>о компании</b>", "компания"),
    ("Счёт «Ромашки» — за №5…", "ромашка"),
    ("Счёт «Ромашки» — за №5…", "5"),
    ("Счёт «Ромашки»—за ноябрь", "«ромашка за ноябрь»"),
    ("🚀deploy", "deploying"),
    ("Цена 5\u00a0000\u202f₽", "цены"),
    ("if a<b and c>d", "c"),
    ("Отправить счёт", '"отправил счета"'),
    ("Отправить счёт", "-отчёт счёт"),
    ("Отправить счёт", "отчёт or счёт"),
    ("Отправить счёт за ноябрь", "счёт -(декабрь) ноябрь"),
]

NOT_FOUND = [
    ("Отчёт за ноябрь", "отчёт декабрь"),
    ("Отчёт за ноябрь", "-отчёт"),
    ("Отправить старый счёт", '"отправить счёт"'),
    ("Resize the image", "size"),
    ("Отчёт", "отч"),
    ("Ежедневный", "еже"),
]


@pytest.mark.parametrize(("title", "text"), MORPHOLOGY)
async def test_words_are_found_in_any_of_their_forms(make: Maker, store: SearchStore, title: str, text: str) -> None:
    await make.one(title)
    await make.one("Совсем другое", description="unrelated words")
    assert title in await titles(store, text)


@pytest.mark.parametrize(("title", "text"), NOT_FOUND)
async def test_what_does_not_match_is_not_found(make: Maker, store: SearchStore, title: str, text: str) -> None:
    await make.one(title)
    assert await titles(store, text) == []


async def test_a_text_is_searched_as_it_is_marked(database: Database) -> None:
    characters = [chr(n) for n in (*range(1, 0xD800), *range(0xE000, 0x11000), *range(0x1EFF0, 0x1FB10))]
    # A letter between them: in a row of marks, those that one side's Unicode does not know yet have no order.
    text = "a".join(characters)
    assert await database.fetchval("SELECT search_text($1)", text) == search_text(text)


async def test_descriptions_are_searched_too(make: Maker, store: SearchStore) -> None:
    await make.one("a", description="Собрать отчёты по продажам")
    page = await store.search(SearchQuery("ann", "отчет"))
    assert [found.description for found in page.results] == ["Собрать <mark>отчёты</mark> по продажам"]
    assert [found.title for found in page.results] == ["a"]


async def test_better_matches_come_first(make: Maker, store: SearchStore) -> None:
    rest = "о чём то другом совсем ином и ещё немного слов для длины"
    await make.one("слабо", description=f"один отчёт {rest}")
    await make.one("сильнее", description=f"отчёт отчёт отчёт {rest}")
    await make.one("отчёт", description=rest)
    await make.one("отчёт об отчёте", description="отчёт")
    assert await titles(store, "отчёты") == ["отчёт об отчёте", "отчёт", "сильнее", "слабо"]


async def test_among_equals_the_newest_comes_first(make: Maker, store: SearchStore) -> None:
    made = [(await make.one("отчёт")).id for _ in range(4)]
    page = await store.search(SearchQuery("ann", "отчёт"))
    assert [found.task.id for found in page.results] == made[::-1]
    assert len({found.rank for found in page.results}) == 1


@pytest.mark.parametrize("text", ["", "   ", "и", "the of and", "и в на", '""', "!!! &&& |", "—", "()"])
async def test_a_query_without_a_word_finds_nothing_and_says_why(make: Maker, store: SearchStore, text: str) -> None:
    await make.one("и в на the")
    assert await store.search(SearchQuery("ann", text)) == SearchPage((), 0, hint=HINT)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("настр", ["Настройка сервера"]),
        ("на", ["Настройка сервера"]),
        ("сервера нас", ["Настройка сервера"]),
        ("картинка or настр", ["Настройка сервера"]),
        ("картинка or сервер настр", ["Настройка сервера"]),
        ("ресайз or картинка нас", []),
        ("настройками", ["Настройка сервера"]),
        ("ima", ["Resize images"]),
        ("resizing ima", ["Resize images"]),
        ("елоч", ["Ёлочный базар"]),
        ("ёлоч", ["Ёлочный базар"]),
        ('"настр', []),
        ("-настр ima", ["Resize images"]),
        ("ima -настр", []),
    ],
)
async def test_the_last_word_may_be_a_beginning(make: Maker, store: SearchStore, text: str, found: list[str]) -> None:
    for title in ("Настройка сервера", "Resize images", "Ёлочный базар"):
        await make.one(title)
    assert await titles(store, text, prefix=True) == found


async def test_a_beginning_is_none_without_being_asked_for(make: Maker, store: SearchStore) -> None:
    await make.one("Настройка сервера")
    assert await titles(store, "настр") == []


async def test_filters(make: Maker, tasks: TaskStore, store: SearchStore) -> None:
    await make.one("отчёт a", kind="a")
    cancelled = await make.one("отчёт b", kind="b")
    await tasks.cancel("ann", cancelled.id)
    await make.one("отчёт ben", owner="ben", kind="a")
    assert await titles(store, "отчёт") == ["отчёт b", "отчёт a"]
    assert await titles(store, "отчёт", kind="a") == ["отчёт a"]
    assert await titles(store, "отчёт", statuses=(Status.CANCELLED, Status.DONE)) == ["отчёт b"]
    assert await titles(store, "отчёт", owner="ben") == ["отчёт ben"]
    assert len(await titles(store, "отчёт", owner=None)) == 3


async def test_a_change_is_found_at_once(make: Maker, tasks: TaskStore, store: SearchStore) -> None:
    task = await make.one("старое")
    await tasks.update("ann", task.id, parse_patch({"title": "новое"}))
    assert (await titles(store, "старое"), await titles(store, "новое")) == ([], ["новое"])
    await tasks.delete("ann", task.id)
    assert await titles(store, "новое") == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=200), prefix=st.booleans())
async def test_any_text_is_a_query(store: SearchStore, text: str, prefix: bool) -> None:
    assert (await store.search(SearchQuery("ann", text, prefix))).total == 0


@pytest.mark.parametrize(
    "text",
    ["'" * 500, '"' * 999, "a & | ! ( ) <-> :* \\", "or or or", "- - -", "a" * 1000, "слово " * 166, "-a " * 333,
     "':*", "0taskd0prefix0", "'0taskd0prefix0'", "\\'x", "a\tb\nc"],
)  # fmt: skip
@pytest.mark.parametrize("prefix", [False, True])
async def test_hostile_queries_are_queries(make: Maker, store: SearchStore, text: str, prefix: bool) -> None:
    await make.one("a")
    page = await store.search(SearchQuery("ann", text, prefix))
    assert page.total in (0, 1)


async def test_a_search_that_takes_too_long_is_broken_off(
    make: Maker, database: Database, database_url: str
) -> None:
    await make.one("отчёт")
    alone = Database(database_url, max_size=1)
    await alone.open()
    store = SearchStore(alone, patience=0.05)
    async with database.transaction() as session:
        await session.execute("LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE")
        # Long before the connection's own patience is at its end.
        async with asyncio.timeout(20):
            with pytest.raises(Unavailable):
                await store.search(SearchQuery("ann", "отчёт"))
    assert len(await titles(SearchStore(alone), "отчёт")) == 1
    # The limit was that transaction's: others on the same connection may take their time.
    assert await alone.fetchval("SHOW statement_timeout") == "0"
    assert await alone.fetchval("SHOW plan_cache_mode") == "auto"
    await alone.close()


ATTEMPT = """
    SELECT a.xact_start FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE NOT l.granted AND l.relation = 'tasks'::regclass
"""


@pytest.mark.parametrize(("text", "by_words"), [("отчёт", 1), ("-другое", 0)])
async def test_a_search_that_is_broken_off_goes_by_its_words(
    make: Maker, database: Database, database_url: str, text: str, by_words: int
) -> None:
    await make.one("отчёт")
    catalog = Catalog()
    alone = Database(database_url, max_size=1, catalog=catalog)
    await alone.open()
    store = SearchStore(alone, first_patience=0.05, patience=60)
    async with database.transaction() as session:
        await session.execute("LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE")
        searching = asyncio.ensure_future(titles(store, text))
        first = await eventually(lambda: database.fetchval(ATTEMPT))
        # The second attempt has more patience than the first.
        second = f"{ATTEMPT} AND a.xact_start > $1 AND clock_timestamp() > a.xact_start + interval '0.2 s'"
        await eventually(lambda: database.fetchval(second, first))
    assert await searching == ["отчёт"]
    assert catalog.query_seconds.labels("search.by_words").count == by_words
    assert await alone.fetchval("SHOW enable_indexscan") == "on"
    await alone.close()


async def all_of(store: SearchStore, query: SearchQuery) -> list[UUID]:
    return [found.task.id async for page in pages(store, query) for found in page.results]


@pytest.mark.parametrize("limit", [1, 3, 4, 7, 50])
@pytest.mark.parametrize("most", [1, 3, 10, 11, 1000])
async def test_pages_together_are_all_that_matches(make: Maker, database: Database, most: int, limit: int) -> None:
    made = [await make.one("отчёт " + "отчёт " * (n % 3)) for n in range(11)]
    await make.one("другое")
    store = SearchStore(database, most=most)
    found = [page async for page in pages(store, SearchQuery("ann", "отчёт", limit=limit))]
    ids = [result.task.id for page in found for result in page.results]
    assert ids == expected(made, most)
    assert all(len(page.results) == limit for page in found[:-1])
    assert (found[-1].total, found[-1].exact) == (11, True)
    assert all(page.exact is (page.total == 11) for page in found)
    assert [page.total for page in found] == sorted(page.total for page in found)


def expected(made: list[Task], most: int) -> list[UUID]:
    """Return the ids in windows of `most` newest, each by number of words, then newest."""
    newest = sorted(made, key=lambda task: task.id, reverse=True)
    windows = [newest[n : n + most] for n in range(0, len(newest), most)]
    return [
        task.id
        for window in windows
        for task in sorted(window, key=lambda task: (len(task.title.split()), task.id), reverse=True)
    ]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_pages_neither_repeat_nor_skip_what_was_there_all_along(database: Database, data: st.DataObject) -> None:
    tasks, make = TaskStore(database), Maker(TaskStore(database))
    owner = f"o{data.draw(st.integers(0, 10**12))}"
    stay = {(await make.one(f"отчёт {n}", owner=owner)).id for n in range(8)}
    doomed = [await make.one("отчёт о другом", owner=owner) for _ in range(4)]
    store = SearchStore(database, most=data.draw(st.integers(1, 14)))
    query = SearchQuery(owner, "отчёт", limit=data.draw(st.integers(1, 4)))
    seen: list[UUID] = []
    while True:
        page = await store.search(query)
        seen += [found.task.id for found in page.results]
        if page.next_cursor is None:
            break
        query = query._replace(cursor=page.next_cursor)
        change = data.draw(st.sampled_from(["nothing", "create", "delete", "unmatch"]))
        if change == "create":
            await make.one("отчёт отчёт отчёт", owner=owner)
        elif change == "delete" and doomed:
            await tasks.delete(owner, doomed.pop().id)
        elif change == "unmatch" and doomed:
            await tasks.update(owner, doomed.pop().id, parse_patch({"title": "иное"}))
    assert len(seen) == len(set(seen))
    assert stay <= set(seen)


async def test_a_cursor_that_is_none_of_this_search_is_refused(make: Maker, store: SearchStore) -> None:
    await make.many(2, description="отчёт")
    page = await store.search(SearchQuery("ann", "отчёт", limit=1))
    for cursor, text in ((page.next_cursor, "другое"), ("garbage", "отчёт")):
        with pytest.raises(Invalid, match="cursor: "):
            await store.search(SearchQuery("ann", text, cursor=cursor))


async def test_long_descriptions_are_shown_around_what_was_found(make: Maker, store: SearchStore) -> None:
    filler = " ".join(f"слово{n}" for n in range(1500))
    await make.one("t", description=f"{filler} нашёлся клад {filler}"[:20_000])
    [found] = (await store.search(SearchQuery("ann", "клады"))).results
    assert "нашёлся <mark>клад</mark>" in found.description
    assert len(found.description) < 1000


async def test_documents_can_be_made_with_another_configuration(
    make: Maker, database: Database, store: SearchStore
) -> None:
    assert await configure(database, "russian", rebuild=False) == ("pg_catalog.russian", "pg_catalog.russian", False)
    # There are no tasks: nothing to wait for.
    assert await configure(database, "english", rebuild=False) == ("pg_catalog.russian", "pg_catalog.english", False)
    assert (await configured(database, "english")).present == "pg_catalog.english"
    await make.one("Отчёты resizing")
    # A search that runs on follows.
    assert (len(await titles(store, "отчёт")), len(await titles(store, "resized"))) == (0, 1)
    with pytest.raises(ConfigError, match=r"TASKD_SEARCH_CONFIG is pg_catalog\.simple, .* `taskd migrate`"):
        await configure(database, "simple", rebuild=False)
    before = await configure(database, "pg_catalog.simple", rebuild=True)
    assert before == ("pg_catalog.english", "pg_catalog.simple", True)
    assert (len(await titles(store, "отчёты")), len(await titles(store, "отчёт"))) == (1, 0)
    with pytest.raises(ConfigError, match="no text search configuration klingon"):
        await configure(database, "klingon", rebuild=True)


COLUMNS = "SELECT max(attnum) FROM pg_attribute WHERE attrelid = 'tasks'::regclass"
STORE = """
    INSERT INTO tasks (id, owner, kind, title, description, payload, created_at)
    VALUES (new_task_id(now(), 0), 'ann', 'kind', 'отчёт', '', '{}', now())
"""
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'tasks'::regclass"


LOCKED_OUT = """
    SELECT count(*) FROM pg_locks
    WHERE NOT granted AND locktype = 'advisory'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


async def test_two_processes_may_configure_at_once(database: Database) -> None:
    before = await database.fetchval(COLUMNS)
    found = await asyncio.gather(*(configure(database, "english", rebuild=False) for _ in range(4)))
    assert {one.wanted for one in found} == {"pg_catalog.english"} == {(await configured(database, "english")).present}
    # One of them has done it.
    assert await database.fetchval(COLUMNS) == before + 1


async def test_a_migration_that_runs_is_waited_for(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(load("schema")["lock"])
        configuring = asyncio.ensure_future(configure(database, "english", rebuild=False))
        await eventually(lambda: database.fetchval(LOCKED_OUT))
        assert await database.fetchval(WAITING) == 0
    assert (await configuring).wanted == "pg_catalog.english"


async def test_who_is_storing_a_task_is_waited_for(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(STORE)
        configuring = asyncio.ensure_future(configure(database, "english", rebuild=False))
        await eventually(lambda: database.fetchval(WAITING))
    with pytest.raises(ConfigError, match=r"documents are made with pg_catalog\.russian"):
        await configuring


async def test_documents_that_are_made_anew_have_statistics(make: Maker, database: Database) -> None:
    await make.many(50, description="отчёт")
    await configure(database, "english", rebuild=True)
    assert await database.fetchval("SELECT count(*) FROM pg_stats WHERE attname = 'document'") == 1


async def test_created_tasks_stay_whole_in_any_configuration(make: Maker, database: Database) -> None:
    await configure(database, "simple", rebuild=False)
    task = await make.one("Отчёт")
    assert task == (await TaskStore(database).get_many([task.id]))[0]
    await TaskStore(database).insert([("ann", NewTask("ещё"))])
