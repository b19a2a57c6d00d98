"""What was measured, as it is shown."""

from __future__ import annotations

import pytest

from taskd.cli.load.rows import Row, table

ROWS = [
    Row("reads", "answers/s", 1234.56, [0.001, 0.002, 0.003], 3),
    Row("writes", "answers/s", 12.0, [0.5], 1, limited=2),
    Row("queue", "tasks/s", fault="no worker \x1b[1m"),
]


def test_rows_are_a_table() -> None:
    assert table(ROWS, colours=False).splitlines() == [
        "                   rate  p50, ms  p99, ms  of",
        "reads   1,235 answers/s     2.00     2.98   3",
        "writes     12 answers/s   500.00   500.00   1  (2 times slowed down by 429)",
        "queue   no worker �[1m",
    ]


def test_colours_are_for_those_who_want_them() -> None:
    assert table(ROWS, colours=True).splitlines()[3] == "queue   \x1b[31mno worker �[1m\x1b[0m"


def test_rows_are_json() -> None:
    assert ROWS[0].json() == {
        "name": "reads", "unit": "answers/s", "value": 1234.6, "p50_ms": 2.0, "p99_ms": 2.98, "number": 3,
        "limited": 0, "fault": None,
    }  # fmt: skip
    assert (ROWS[2].json()["value"], ROWS[2].json()["p50_ms"]) == (None, None)


def test_no_times_have_no_percentiles() -> None:
    assert Row("x", "y").percentile(50) is None
    assert Row("x", "y", times=[0.25]).percentile(99) == pytest.approx(250)
