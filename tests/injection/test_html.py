"""Text of users is text to a browser: on the dashboard, and in what a search highlights."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from importlib import resources
from unicodedata import normalize

import pytest

from taskd import Context, Task, Taskd
from tests.deploy.programs import needs
from tests.fronts import both, served_by
from tests.injection.browser import Page, browser
from tests.injection.hostile import TEXTS
from tests.running import embedded
from tests.waiting import eventually

# What makes markup or code of a text (HTML standard, "Dynamic markup insertion"; ECMAScript, `eval`).
SINKS = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\s*\.\s*write|createContextualFragment|DOMParser|setHTML|srcdoc"
    r"|\beval\b|\bnew\s+Function\b|set(?:Timeout|Interval)\s*\(\s*[\"'`]|\.setAttribute\(\s*[\"']on|javascript:"
    r"|\.(?:href|src|action)\s*="
)


@pytest.mark.parametrize("name", [file.name for file in (resources.files("taskd.web") / "static").iterdir()])
def test_no_file_of_the_pages_makes_markup_of_text(name: str) -> None:
    text = (resources.files("taskd.web") / "static" / name).read_text("utf-8")
    assert SINKS.findall(text) == []
    if name.endswith(".html"):
        assert not re.search(r"<script(?![^>]* src=)|\son\w+\s*=|\sstyle\s*=", text, re.IGNORECASE)


class Marks(HTMLParser):
    """Reads a highlight, and knows `<mark>` alone."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert (tag, attributes) == ("mark", [])

    def handle_endtag(self, tag: str) -> None:
        assert tag == "mark"

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    handle_decl = handle_pi = unknown_decl = handle_comment


@both
async def test_a_highlight_has_marks_and_text(database_url: str, front: str) -> None:
    async with served_by(front, database_url, role="api") as server, server.client() as client:
        for text in TEXTS.values():
            body = {"title": f"needle {text}"[:200], "description": f"{text} needle {text}"}
            assert (await client.post("/tasks", json=body)).status_code == 201
        results = (await client.get("/search?query=needle&limit=200")).json()["results"]
        assert len(results) == len(TEXTS)
        for result in results:
            for name, found in result["highlights"].items():
                assert "<mark>needle</mark>" in found
                assert not re.search("<(?!/?mark>)", found)
                assert html.unescape(found).count("<mark>") >= 1
                marks = Marks()
                marks.feed(found)
                marks.close()
                if name == "title":
                    assert "".join(marks.text) == normalize("NFC", result["task"]["title"])


@needs("chromium")
async def test_the_dashboard_shows_texts_as_they_are(database_url: str) -> None:
    app = Taskd(database_url=database_url, auth="none", http="127.0.0.1:0", grpc="off")

    @app.handler("fails", max_attempts=1)
    async def fails(task: Task, ctx: Context) -> None:
        await ctx.progress(0.5, task.title)
        raise ValueError(task.title)

    texts = list(TEXTS.values())
    async with embedded(database_url, app) as server, browser() as page, server.client() as client:

        async def create(some: list[str]) -> None:
            body = {"tasks": [{"title": text, "kind": "fails", "max_attempts": 1} for text in some]}
            assert (await client.post("/tasks/batch", json=body)).status_code == 201

        # Half of them are there before, and half come by the stream of events.
        await create(texts[::2])
        await page.open(f"{server.url}/?user=ann")
        await eventually(lambda: _is_shown(page, texts[::2]))
        await create(texts[1::2])
        await eventually(lambda: _is_shown(page, texts))
        assert await page.value("document.querySelectorAll('#tasks *:not(tr):not(td):not(button)').length") == 0
        assert await page.value("document.querySelectorAll('script').length") == 1
        assert await page.value("document.title") == "taskd"
        assert page.complaints() == []


@needs("chromium")
async def test_the_dashboard_shows_refusals_and_names_as_they_are(database_url: str) -> None:
    async with embedded(database_url, role="api") as server, browser() as page:
        name = "<img src=x onerror=alert(1)>&amp;"
        await page.open(f"{server.url}/?user=%3Cimg%20src=x%20onerror=alert(1)%3E%26amp;")
        await eventually(lambda: _is(page, "document.getElementById('connection')?.textContent", f"live, as {name}"))
        await page.value("call('POST', '/tasks', {title: 't', '<img src=x onerror=alert(1)>': 1})")
        told = await page.value("document.getElementById('fault').value")
        assert told == "<img src=x onerror=alert(1)>: is no field of this request"
        assert await page.value("document.images.length") == 0
        # 422 was meant.
        assert [one for one in page.complaints() if "422" not in one] == []


async def _is(page: Page, expression: str, expected: str) -> bool:
    return bool(await page.value(expression) == expected)


async def _is_shown(page: Page, texts: list[str]) -> bool:
    rows = await page.value(
        "[...document.querySelectorAll('#tasks tr')].map(r => [...r.cells].map(c => c.textContent))"
    )
    shown = {(row[2], row[3]) for row in rows}
    return shown == {(text, f"failed: {text}") for text in texts}
