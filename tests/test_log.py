import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from taskd import log

NASTY = 'a\nb\r\x1b[31m\x00\x7f\x85\u2028\u202e"\\ж\ud800😀'

logger = logging.getLogger("taskd.test")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root, taskd = logging.getLogger(), logging.getLogger("taskd")
    handlers, level = list(root.handlers), taskd.level
    yield
    root.handlers[:] = handlers
    taskd.setLevel(level)


def logged(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines() -> None:
    stream = io.StringIO()
    log.setup("json", "info", stream)
    logger.info("hello %s", "world", extra=log.fields(task="t1", attempt=2))
    [entry] = logged(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry.pop("time"))
    assert entry == {"level": "info", "logger": "taskd.test", "message": "hello world", "task": "t1", "attempt": 2}


@pytest.mark.parametrize("format", ["json", "text"])
def test_nothing_that_is_logged_can_forge_a_line_or_reach_the_terminal(format: str) -> None:
    stream = io.StringIO()
    log.setup(format, "info", stream)
    token = log.request_id.set(NASTY)
    try:
        logger.info("m %s", NASTY, extra=log.fields(note=NASTY, inner={NASTY: [NASTY]}))
    finally:
        log.request_id.reset(token)
    text = stream.getvalue()
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    text.encode()


def test_json_carries_every_text_unchanged() -> None:
    stream = io.StringIO()
    log.setup("json", "info", stream)
    logger.info("%s", NASTY, extra=log.fields(note=NASTY))
    [entry] = logged(stream)
    assert (entry["message"], entry["note"]) == (NASTY, NASTY)
    assert stream.getvalue().isascii()


def test_facts_of_any_type_make_valid_json() -> None:
    stream = io.StringIO()
    log.setup("json", "info", stream)
    facts = {"a": float("nan"), "b": float("-inf"), "c": 1.5, "d": None, "e": True, "f": {1: (2, {3})}, "g": b"x"}
    logger.info("m", extra=log.fields(**facts, h=[object]))
    [entry] = logged(stream)
    assert [entry[name] for name in facts] == ["nan", "-inf", 1.5, None, True, {"1": [2, [3]]}, "b'x'"]
    assert entry["h"] == ["<class 'object'>"]


def test_a_fact_does_not_displace_the_entrys_own() -> None:
    stream = io.StringIO()
    log.setup("json", "info", stream)
    logger.info("m", extra=log.fields(level="high", message="x"))
    [entry] = logged(stream)
    assert (entry["level"], entry["level_"], entry["message"], entry["message_"]) == ("info", "high", "m", "x")


def test_an_extra_that_is_not_facts_is_left_alone() -> None:
    stream = io.StringIO()
    log.setup("json", "info", stream)
    logger.info("m", extra={"taskd": 5})
    assert logged(stream)[0]["message"] == "m"


def test_the_request_goes_along() -> None:
    stream = io.StringIO()
    log.setup("json", "info", stream)
    logger.info("before")
    token = log.request_id.set("r-1")
    logger.info("during")
    log.request_id.reset(token)
    assert [entry.get("request_id") for entry in logged(stream)] == [None, "r-1"]


def test_exceptions_are_printed() -> None:
    stream = io.StringIO()
    log.setup("json", "info", stream)
    try:
        raise KeyError(NASTY)
    except KeyError:
        logger.exception("it failed", stack_info=True)
    [entry] = logged(stream)
    assert entry["level"] == "error"
    assert "Traceback (most recent call last)" in entry["error"]
    assert "KeyError" in entry["error"]
    assert "Stack (most recent call last)" in entry["error"]


def test_text_for_people() -> None:
    stream = io.StringIO()
    log.setup("text", "info", stream)
    token = log.request_id.set("r-1")
    logger.warning("задача готова", extra=log.fields(task="t1", note="two words", empty="", seconds=0.5))
    log.request_id.reset(token)
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{3}Z WARNING  taskd\.test: задача готова"
        r'  task=t1  note="two words"  empty=""  seconds=0\.5  request_id=r-1\n',
        stream.getvalue(),
    )


def test_a_traceback_in_text_is_marked_on_each_line() -> None:
    stream = io.StringIO()
    log.setup("text", "info", stream)
    try:
        raise ValueError("first\n12:00:00.000Z INFO     taskd.auth: forged \x1b[31m")
    except ValueError:
        logger.exception("it failed")
    head, *rest = stream.getvalue().splitlines()
    assert head.endswith("ERROR    taskd.test: it failed")
    assert rest
    assert all(line.startswith("    | ") and line.isprintable() for line in rest)
    assert "    | 12:00:00.000Z INFO     taskd.auth: forged \\x1b[31m" in rest


@pytest.mark.parametrize(("stream", "is_json"), [(Terminal(), False), (io.StringIO(), True)])
def test_auto_is_text_on_a_terminal_and_json_elsewhere(stream: io.StringIO, is_json: bool) -> None:
    log.setup("auto", "info", stream)
    logger.info("hello")
    assert stream.getvalue().startswith("{") is is_json


def test_it_goes_to_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log.setup()
    logger.info("hello")
    assert logged(stream)[0]["message"] == "hello"


def test_levels() -> None:
    stream = io.StringIO()
    log.setup("json", "warning", stream)
    logger.info("no")
    logger.warning("yes")
    logging.getLogger("elsewhere").info("no")
    logging.getLogger("elsewhere").warning("yes too")
    assert [entry["message"] for entry in logged(stream)] == ["yes", "yes too"]


def test_a_second_setup_replaces_the_first_and_leaves_foreign_handlers() -> None:
    first, second = io.StringIO(), io.StringIO()
    foreign = logging.NullHandler()
    logging.getLogger().addHandler(foreign)
    log.setup("json", "info", first)
    log.setup("text", "info", second)
    logger.info("hello")
    assert first.getvalue() == ""
    assert second.getvalue().count("hello") == 1
    assert foreign in logging.getLogger().handlers


@pytest.mark.parametrize("format", ["text", "json"])
@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("of tk_" + "a" * 43 + " too", "of tk_*** too"),
        ("at postgresql://ann:s3cret@db/tasks", "at postgresql://ann:***@db/tasks"),
        ("at redis://:s3@cr/et@db:1", "at redis://:***@db:1"),
        ("at postgresql://db/x?user=ann&password=s3cret&x=1", "at postgresql://db/x?user=ann&password=***&x=1"),
        ("tk_short, 12:30@noon, http://a:80/b", "tk_short, 12:30@noon, http://a:80/b"),
    ],
)
def test_no_secret_gets_into_a_line(format: str, said: str, shown: str) -> None:
    stream = io.StringIO()
    log.setup(format, "info", stream)
    logging.getLogger("taskd.test").info("%s", said, extra=log.fields(fact=said))
    logging.getLogger("taskd.test").error("with a trace", exc_info=ValueError(said))
    text = stream.getvalue()
    assert text.count(shown) == 3
    assert "s3cret" not in text
    assert "a" * 43 not in text
