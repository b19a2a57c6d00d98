"""SQL from files."""

from __future__ import annotations

from importlib import resources

import pytest

from taskd.store.statements import Statement, compose, load

FILES = sorted(file.name.removesuffix(".sql") for file in (resources.files("taskd.store") / "sql").iterdir())


@pytest.mark.parametrize("file", FILES)
def test_each_statement_says_why_it_is(file: str) -> None:
    statements = load(file)
    assert statements
    for name, statement in statements.items():
        assert statement.name == name
        assert statement.text.startswith("-- "), name
        assert not statement.text.endswith(";")


def test_compose_keeps_the_lines_asked_for_and_numbers_parameters() -> None:
    statement = Statement("x", "SELECT :b::text\n  AND a = :a --? a\n  AND c = :c   --? c\nLIMIT :b")
    text, args = compose(statement, {"a": 1, "b": 2, "c": 3}, frozenset({"c"}))
    assert text == Statement("x", "SELECT $1::text\n  AND c = $2\nLIMIT $1")
    assert args == [2, 3]
