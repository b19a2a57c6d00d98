"""`GET /search`: full text translated to the service, and back."""

from __future__ import annotations

from collections.abc import Sequence

from taskd.domain.access import Access
from taskd.domain.search import SEARCH, encode_search_page, parse_search_query
from taskd.service.ports import Tasks
from taskd.web.message import Request, Response
from taskd.web.middleware import link_next
from taskd.web.router import Reply, Route


class SearchCalls:
    """Handler of the search route."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks

    async def search(self, request: Request) -> Response:
        """`GET /search`"""
        page = await self._tasks.search(request.user, parse_search_query(request.user, request.query))
        answer = Response(200, encode_search_page(page))
        if page.next_cursor is None:
            return answer
        return answer.with_headers(link_next(request.path, request.query, page.next_cursor))

    def routes(self) -> Sequence[Route]:
        """Return the route of this call."""
        found = Reply("a page of what was found, best first", "Found", ("Link",))
        return (
            Route(
                "GET", "/search", self.search, "Find tasks by their words", {200: found}, Access.TASKS,
                query=SEARCH, own_query=True,
            ),
        )  # fmt: skip
