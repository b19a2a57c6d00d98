"""SQL from files."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from taskd.store.statements import Statement, compose, load

FILES = sorted(file.name.removesuffix(".sql") for file in (resources.files("taskd.store") / "sql").iterdir())


@pytest.mark.parametrize("file", FILES)
def test_each_statement_says_why_it_is(file: str) -> None:
    statements = load(file)
    assert statements
    for name, statement in statements.items():
        assert statement.name == f"{file}.{name}"
        assert statement.text.startswith("-- "), name
        assert not statement.text.endswith(";")


WRITES_STATES = re.compile(r"(?:UPDATE|INSERT INTO) task_states\b")


@pytest.mark.parametrize("file", FILES)
def test_each_statement_that_changes_a_state_says_what_the_status_was(file: str) -> None:
    for name, statement in load(file).items():
        if name == "adopt":
            # It changes no task: the triggers that would log it rest.
            assert "DISABLE TRIGGER USER" in statement.text
            continue
        for write in WRITES_STATES.finditer(statement.text):
            begun = statement.text[write.start() :]
            if begun.startswith("UPDATE"):
                assert re.match(r"UPDATE task_states s SET\s+was = s\.status,", begun), name
            else:
                assert re.search(r"\bwas\)\s*SELECT[^;]*, ''\s+FROM", begun), name


def test_the_statements_that_change_a_state_are_known() -> None:
    found = {s.name for file in FILES for s in load(file).values() if WRITES_STATES.search(s.text)}
    assert found == {
        "claims.claim", "claims.finish", "claims.report", "claims.promote", "leases.rescue", "schema.adopt",
        "tasks.insert", "tasks.set_state",
    }  # fmt: skip


def test_compose_keeps_the_lines_asked_for_and_numbers_parameters() -> None:
    statement = Statement("x", "SELECT :b::text\n  AND a = :a --? a\n  AND c = :c   --? c\nLIMIT :b")
    text, args = compose(statement, {"a": 1, "b": 2, "c": 3}, frozenset({"c"}))
    assert text == Statement("x", "SELECT $1::text\n  AND c = $2\nLIMIT $1")
    assert args == [2, 3]
