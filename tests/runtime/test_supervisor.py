import asyncio
import logging

import pytest

from taskd.errors import Unavailable
from taskd.runtime.supervisor import Supervisor


async def forever() -> None:
    await asyncio.Event().wait()


async def test_a_task_that_ends_is_forgotten() -> None:
    supervisor = Supervisor()

    async def five() -> int:
        return 5

    assert await supervisor.spawn(five(), "five") == 5
    assert not supervisor.failed.done()
    await supervisor.stop()


async def test_a_death_is_logged_and_made_known(caplog: pytest.LogCaptureFixture) -> None:
    supervisor = Supervisor()
    error = ZeroDivisionError("a bug")

    async def die() -> None:
        raise error

    supervisor.spawn(die(), "duty")
    with pytest.raises(ZeroDivisionError) as caught:
        async with asyncio.timeout(10):
            await supervisor.failed
    assert caught.value is error
    [record] = [record for record in caplog.records if record.name == "taskd.supervisor"]
    assert record.levelno == logging.CRITICAL
    assert record.getMessage() == "background task duty died"
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    await supervisor.stop()


async def test_only_the_first_death_counts() -> None:
    supervisor = Supervisor()

    async def die(error: Exception) -> None:
        raise error

    first, second = (supervisor.spawn(die(error), "duty") for error in (KeyError(1), ValueError(2)))
    await asyncio.wait({first, second})
    with pytest.raises(KeyError):
        await supervisor.failed
    await supervisor.stop()


async def test_a_cancelled_task_is_no_death() -> None:
    supervisor = Supervisor()
    task = supervisor.spawn(forever(), "duty")
    task.cancel()
    await asyncio.wait({task})
    assert not supervisor.failed.done()


async def test_stop_cancels_and_waits_also_for_what_starts_meanwhile() -> None:
    supervisor = Supervisor()
    ended = []

    async def ends_slowly() -> None:
        try:
            await forever()
        finally:
            supervisor.spawn(forever(), "late")
            await asyncio.sleep(0)
            ended.append(True)

    task = supervisor.spawn(ends_slowly(), "slow")
    await asyncio.sleep(0)
    await supervisor.stop()
    assert ended == [True]
    assert task.cancelled()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await supervisor.stop()


async def test_stop_does_not_cancel_its_own_caller() -> None:
    supervisor = Supervisor()
    other = supervisor.spawn(forever(), "other")

    async def stops() -> str:
        await supervisor.stop()
        return "done"

    assert await supervisor.spawn(stops(), "stops") == "done"
    assert other.cancelled()


async def test_nothing_starts_after_stop() -> None:
    supervisor = Supervisor()
    await supervisor.stop()
    with pytest.raises(Unavailable):
        supervisor.spawn(forever(), "late")


def test_one_may_be_made_before_the_loop() -> None:
    supervisor = Supervisor()

    async def main() -> None:
        task = supervisor.spawn(forever(), "duty")
        await supervisor.stop()
        assert task.cancelled()

    asyncio.run(main())
