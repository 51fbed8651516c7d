"""Connections counted over processes: never above the limit while Valkey answers, and healed after it was away."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from tests.streaming.cluster.cast import Holder, flush_all, new_id, stop_heart, until_up
from tests.support.valkey import Valkey

MakeHolder = Callable[[str], Holder]


@pytest.fixture
async def make_holder() -> AsyncIterator[MakeHolder]:
    made: list[Holder] = []

    def make(url: str) -> Holder:
        made.append(Holder(url))
        return made[-1]

    yield make
    for holder in made:
        await holder.link.close()


@pytest.fixture
async def two(make_holder: MakeHolder, valkey: Valkey) -> tuple[Holder, Holder]:
    """Two processes that live."""
    first, second = make_holder(valkey.url), make_holder(valkey.url)
    await first.places.beat()
    await second.places.beat()
    return first, second


async def test_user_has_the_connections_of_the_plan_over_two_processes_and_no_more(two: tuple[Holder, Holder]) -> None:
    bob, first, second = new_id(), *two
    for process in (first, second, first):
        assert (await process.take(bob, new_id(), user_limit=3)).refusal == ""
    for process in (first, second):
        assert (await process.take(bob, new_id(), user_limit=3)).refusal == "user_limit"
    assert (await second.take(new_id(), new_id(), user_limit=3)).refusal == ""


async def test_company_has_the_connections_of_the_plan_over_two_processes_and_no_more(
    two: tuple[Holder, Holder],
) -> None:
    alpha, first, second = new_id(), *two
    for process in (first, second, first):
        assert (await process.take(new_id(), alpha, company_limit=3)).refusal == ""
    for process in (first, second):
        assert (await process.take(new_id(), alpha, company_limit=3)).refusal == "company_limit"
    assert (await second.take(new_id(), new_id(), company_limit=3)).refusal == ""


async def test_refused_connection_takes_no_place(two: tuple[Holder, Holder]) -> None:
    bob, alpha, first, second = new_id(), new_id(), *two
    await first.take(bob, alpha, user_limit=1)
    for _ in range(5):
        assert (await second.take(bob, alpha, user_limit=1)).refusal == "user_limit"
    first.leave(bob, alpha)
    await first.places.sync()
    assert (await second.take(bob, alpha, user_limit=1)).refusal == ""


async def test_two_processes_at_once_do_not_both_take_the_last_place(two: tuple[Holder, Holder]) -> None:
    first, second = two
    for _ in range(50):
        bob, alpha = new_id(), new_id()
        await first.take(bob, alpha, user_limit=2)
        both = await asyncio.gather(first.take(bob, alpha, user_limit=2), second.take(bob, alpha, user_limit=2))
        assert sorted(one.refusal for one in both) == ["", "user_limit"]


async def test_place_that_is_given_back_is_free_for_another_process(two: tuple[Holder, Holder]) -> None:
    bob, alpha, first, second = new_id(), new_id(), *two
    await first.take(bob, alpha, user_limit=1, company_limit=1)
    first.leave(bob, alpha)
    assert (await second.take(bob, alpha, user_limit=1)).refusal == "user_limit"
    await first.places.sync()
    assert (await second.take(bob, alpha, user_limit=1, company_limit=1)).refusal == ""


async def test_process_learns_who_else_serves_the_user(two: tuple[Holder, Holder]) -> None:
    bob, alpha, first, second = new_id(), new_id(), *two
    assert (await first.take(bob, alpha)).others == frozenset()
    assert (await second.take(bob, alpha)).others == frozenset({first.name})
    await first.take(bob, alpha)
    await first.places.sync()
    assert first.others[-1] == (bob, {second.name: 1})
    second.places.mark(bob, alpha)
    await second.places.sync()
    assert second.others[-1] == (bob, {first.name: 2})
    second.leave(bob, alpha)
    await second.places.sync()
    first.places.mark(bob, alpha)
    await first.places.sync()
    assert first.others[-1] == (bob, {})


async def test_connections_of_a_dead_process_count_no_more_when_its_heart_has_stopped(
    make_holder: MakeHolder, valkey: Valkey
) -> None:
    bob, alpha, dead, living = new_id(), new_id(), make_holder(valkey.url), make_holder(valkey.url)
    await living.places.beat()
    await dead.places.beat()
    for _ in range(2):
        await dead.take(bob, alpha, user_limit=2, company_limit=2)
    assert (await living.take(bob, alpha, user_limit=2)).refusal == "user_limit"
    assert (await living.take(new_id(), alpha, company_limit=2)).refusal == "company_limit"
    stop_heart(valkey.url, dead.name)
    reservation = await living.take(bob, alpha, user_limit=1, company_limit=1)
    assert (reservation.refusal, reservation.others) == ("", frozenset())
    # It was only held up: what it holds counts again with its next beat and its next numbers.
    await dead.places.beat()
    dead.places.mark(bob, alpha)
    await dead.places.sync()
    assert (await living.take(bob, alpha, user_limit=2)).refusal == "user_limit"


async def test_process_that_ends_in_order_counts_no_more_at_once(two: tuple[Holder, Holder]) -> None:
    bob, alpha, first, second = new_id(), new_id(), *two
    await first.take(bob, alpha, user_limit=1)
    await first.places.leave()
    assert (await second.take(bob, alpha, user_limit=1)).refusal == ""


async def test_processes_know_how_many_they_are(make_holder: MakeHolder, own_valkey: Valkey) -> None:
    first, second = make_holder(own_valkey.url), make_holder(own_valkey.url)
    await first.places.beat()
    await second.places.beat()
    assert (first.places.process_count, second.places.process_count) == (1, 2)
    await first.places.beat()
    assert first.places.process_count == 2
    await second.places.leave()
    await first.places.beat()
    assert first.places.process_count == 1


async def test_dead_process_is_counted_as_one_no_more(make_holder: MakeHolder, own_valkey: Valkey) -> None:
    dead, living = make_holder(own_valkey.url), make_holder(own_valkey.url)
    await dead.places.beat()
    await living.places.beat()
    assert living.places.process_count == 2
    stop_heart(own_valkey.url, dead.name)
    await living.places.beat()
    assert living.places.process_count == 1


async def test_without_valkey_every_connection_is_let_in_and_nothing_is_known_of_others(
    make_holder: MakeHolder, own_valkey: Valkey
) -> None:
    bob, alpha, away, alone = new_id(), new_id(), make_holder(own_valkey.url), make_holder("")
    own_valkey.stop()
    for process in (away, alone):
        for _ in range(3):
            reservation = await process.take(bob, alpha, user_limit=1, company_limit=1)
            assert (reservation.refusal, reservation.others) == ("", None)


async def test_process_hears_what_it_holds_by_itself_while_valkey_is_away(
    make_holder: MakeHolder, own_valkey: Valkey
) -> None:
    bob, alpha, away = new_id(), new_id(), make_holder(own_valkey.url)
    own_valkey.stop()
    away.places.mark(bob, alpha)
    await away.places.sync()
    assert away.others == [(bob, {})]


async def test_numbers_of_both_processes_are_there_after_the_return_of_an_empty_valkey(
    make_holder: MakeHolder, own_valkey: Valkey
) -> None:
    bob, alpha, first, second = new_id(), new_id(), make_holder(own_valkey.url), make_holder(own_valkey.url)
    for process in (first, second):
        process.link.on_return.append(lambda process=process: process.places.mark_all([(bob, alpha)]))  # type: ignore[misc]
        await process.places.beat()
        await process.take(bob, alpha, user_limit=4)
    own_valkey.stop()
    # One came and one went meanwhile.
    assert (await first.take(bob, alpha, user_limit=4)).others is None
    await second.places.sync()
    own_valkey.start()
    await until_up(first.link, second.link)
    for process in (first, second):
        await process.places.beat()
        await process.places.sync()
    assert (await second.take(bob, alpha, user_limit=4)).refusal == ""
    assert (await first.take(bob, alpha, user_limit=4)).refusal == "user_limit"
    assert (await second.take(new_id(), alpha, company_limit=4)).refusal == "company_limit"


async def test_numbers_that_valkey_has_forgotten_without_an_absence_come_with_the_next_full_sync(
    make_holder: MakeHolder, own_valkey: Valkey
) -> None:
    bob, alpha, first, second = new_id(), new_id(), make_holder(own_valkey.url), make_holder(own_valkey.url)
    for process in (first, second):
        await process.places.beat()
        await process.take(bob, alpha, user_limit=2)
    await flush_all(own_valkey.url)
    for process in (first, second):
        await process.places.beat()
        process.places.mark_all([(bob, alpha)])
        await process.places.sync()
    assert (await first.take(bob, alpha, user_limit=2)).refusal == "user_limit"
    assert (await second.take(new_id(), alpha, company_limit=2)).refusal == "company_limit"


async def test_number_that_could_not_be_written_is_written_later(make_holder: MakeHolder, own_valkey: Valkey) -> None:
    bob, alpha, first, second = new_id(), new_id(), make_holder(own_valkey.url), make_holder(own_valkey.url)
    await first.places.beat()
    own_valkey.stop()
    await first.take(bob, alpha)
    await first.places.sync()
    own_valkey.start()
    await until_up(first.link)
    await first.places.beat()
    await first.places.sync()
    assert (await second.take(bob, alpha, user_limit=1)).refusal == "user_limit"
    assert (await second.take(new_id(), alpha, company_limit=1)).refusal == "company_limit"


async def test_numbers_of_many_users_are_written_in_a_few_visits(two: tuple[Holder, Holder]) -> None:
    first, second = two
    users = [(new_id(), new_id()) for _ in range(450)]
    for user_id, company_id in users:
        first.users[user_id] = first.companies[company_id] = 1
        first.places.mark(user_id, company_id)
    await first.places.sync()
    for user_id, company_id in (users[0], users[-1]):
        assert (await second.take(user_id, company_id, user_limit=1)).refusal == "user_limit"
    first.others.clear()
    await first.places.sync()
    # Nothing has changed.
    assert first.others == []
