"""Turns: who gets the next one, how many there are at once, and who is sent away."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.errors import Busy
from proxy.tools.fair_queue import FairQueue, Ticket


async def soon() -> None:
    """Everything that can go on has gone on."""
    for _ in range(10):
        await asyncio.sleep(0)


async def take(queue: FairQueue, ticket: Ticket) -> None:
    """Take a turn and keep it until this is cancelled."""
    async with queue.turn(ticket):
        await asyncio.Event().wait()


class Crowd:
    """Clients that take turns; `order` is who got one, in order."""

    def __init__(self, queue: FairQueue) -> None:
        self.queue = queue
        self.order: list[str] = []
        self._ends: list[asyncio.Event] = []

    def comes(self, client: str) -> asyncio.Task[None]:
        async def stay() -> None:
            async with self.queue.turn(Ticket(client)):
                end = asyncio.Event()
                self.order.append(client)
                self._ends.append(end)
                await end.wait()

        return asyncio.create_task(stay())

    async def one_ends(self) -> None:
        self._ends.pop(0).set()
        await soon()


async def test_no_more_than_so_many_at_once() -> None:
    crowd = Crowd(FairQueue(2, share=2, most_waiting=10, waiting_share=100))
    tasks = [crowd.comes("one") for _ in range(5)]
    await soon()
    assert (crowd.queue.running, crowd.queue.waiting) == (2, 3)

    for _ in range(5):
        assert crowd.queue.running <= 2
        await crowd.one_ends()
    await asyncio.gather(*tasks)
    assert (crowd.queue.running, crowd.queue.waiting) == (0, 0)


async def test_who_asks_for_much_does_not_go_before_who_asks_for_little() -> None:
    crowd = Crowd(FairQueue(2, share=2, most_waiting=10, waiting_share=100))
    tasks = [crowd.comes("much") for _ in range(6)] + [crowd.comes("little")]
    await soon()
    assert crowd.order == ["much", "much"]

    await crowd.one_ends()
    assert crowd.order[2:] == ["little"]
    for _ in range(6):
        await crowd.one_ends()
    await asyncio.gather(*tasks)


async def test_of_equals_the_one_whose_turn_is_longest_ago_is_next() -> None:
    crowd = Crowd(FairQueue(1, share=1, most_waiting=10, waiting_share=100))
    tasks = [crowd.comes(client) for client in ("a", "b", "c", "b", "a")]
    await soon()
    for _ in range(5):
        await crowd.one_ends()

    await asyncio.gather(*tasks)
    assert crowd.order == ["a", "b", "c", "a", "b"]


async def test_a_share_is_left_for_the_others() -> None:
    crowd = Crowd(FairQueue(3, share=2, most_waiting=10, waiting_share=100))
    tasks = [crowd.comes("much") for _ in range(4)]
    await soon()
    assert (crowd.queue.running, crowd.queue.waiting) == (2, 2), "a turn is free, and not for this client"

    tasks.append(crowd.comes("other"))
    await soon()
    assert crowd.order == ["much", "much", "other"]
    for _ in range(5):
        await crowd.one_ends()
    await asyncio.gather(*tasks)


async def test_past_the_bound_the_newest_is_sent_away_at_once() -> None:
    crowd = Crowd(FairQueue(1, share=1, most_waiting=2, waiting_share=100))
    tasks = [crowd.comes("one") for _ in range(3)]
    await soon()

    with pytest.raises(Busy, match=r"2 builds waiting already \(builds\.queue\)") as caught:
        async with crowd.queue.turn(Ticket("one")):
            raise AssertionError("it got a turn")
    assert caught.value.retry_after > 0
    assert crowd.queue.waiting == 2
    for _ in range(3):
        await crowd.one_ends()
    await asyncio.gather(*tasks)


async def test_two_clients_that_fill_the_queue_together_leave_it_for_a_third() -> None:
    crowd = Crowd(FairQueue(1, share=1, most_waiting=4, waiting_share=100))
    tasks = [crowd.comes("one")]
    tasks += [asyncio.create_task(take(crowd.queue, Ticket("one", "two"))) for _ in range(4)]
    third = crowd.comes("third")
    await soon()

    assert crowd.queue.waiting == 4
    assert [task.done() for task in tasks] == [False, False, False, False, True], "the newest of the crowd's"
    with pytest.raises(Busy):
        await tasks[4]
    assert not third.done()
    for task in (*tasks, third):
        task.cancel()


async def test_who_joins_the_work_of_a_crowd_does_not_leave_with_it() -> None:
    queue = FairQueue(1, share=1, most_waiting=2, waiting_share=100)
    tickets = [Ticket("crowd") for _ in range(3)]
    tasks = [asyncio.create_task(take(queue, ticket)) for ticket in tickets]
    await soon()
    tickets[2].clients["person"] += 1
    tasks.append(asyncio.create_task(take(queue, Ticket("other"))))
    await soon()

    assert [task.done() for task in tasks] == [False, True, False, False]
    tickets[2].leave("person")
    assert tickets[2].clients == {"crowd": 1}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (queue.running, queue.waiting) == (0, 0)


async def test_one_client_has_a_share_of_the_queue_too() -> None:
    queue = FairQueue(1, share=1, most_waiting=9, waiting_share=2)
    tasks = [asyncio.create_task(take(queue, Ticket("one"))) for _ in range(3)]
    await soon()

    with pytest.raises(Busy, match=r"2 builds waiting for you already \(builds\.queue_share\)"):
        await take(queue, Ticket("one"))
    assert queue.waiting == 2
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_turn_that_ends_while_its_next_is_cancelled_goes_to_another() -> None:
    crowd = Crowd(FairQueue(1, share=1, most_waiting=9, waiting_share=9))
    first, second, third = crowd.comes("a"), crowd.comes("b"), crowd.comes("c")
    await soon()
    second.cancel()
    first.cancel()
    await soon()

    assert crowd.order == ["a", "c"]
    third.cancel()
    await soon()
    assert (crowd.queue.running, crowd.queue.waiting) == (0, 0)


async def test_without_a_queue_a_free_turn_is_given_all_the_same() -> None:
    queue = FairQueue(1, share=1, most_waiting=0, waiting_share=100)
    async with queue.turn(Ticket("one")):
        with pytest.raises(Busy):
            async with queue.turn(Ticket("two")):
                pass
    async with queue.turn(Ticket("two")):
        pass


async def test_who_goes_while_waiting_takes_no_turn_away() -> None:
    crowd = Crowd(FairQueue(1, share=1, most_waiting=10, waiting_share=100))
    first, second, third = crowd.comes("a"), crowd.comes("b"), crowd.comes("c")
    await soon()
    second.cancel()
    await soon()
    assert crowd.queue.waiting == 1

    await crowd.one_ends()
    await crowd.one_ends()
    await asyncio.gather(first, third)
    assert crowd.order == ["a", "c"]


async def test_who_goes_at_the_moment_its_turn_comes_gives_it_on() -> None:
    crowd = Crowd(FairQueue(1, share=1, most_waiting=10, waiting_share=100))
    first, second, third = crowd.comes("a"), crowd.comes("b"), crowd.comes("c")
    await soon()
    crowd._ends.pop(0).set()
    await asyncio.sleep(0)  # a's turn ends here, and b's comes
    second.cancel()
    await soon()
    assert crowd.order[-1] == "c"

    await crowd.one_ends()
    await asyncio.gather(first, third)
    assert (crowd.queue.running, crowd.queue.waiting) == (0, 0)


@given(st.lists(st.sampled_from("abcd"), max_size=30), st.integers(1, 4), st.integers(1, 4))
def test_everybody_gets_a_turn_in_the_end(clients: list[str], at_once: int, share: int) -> None:
    async def play() -> None:
        queue = FairQueue(at_once, share=share, most_waiting=100, waiting_share=100)
        running: dict[str, int] = {}

        async def one(client: str) -> None:
            async with queue.turn(Ticket(client)):
                running[client] = running.get(client, 0) + 1
                assert running[client] <= share
                assert sum(running.values()) <= at_once
                await asyncio.sleep(0)
                running[client] -= 1

        async with AsyncExitStack():
            await asyncio.wait_for(asyncio.gather(*map(one, clients)), 60)
        assert (queue.running, queue.waiting) == (0, 0)

    asyncio.run(play())
