"""Catch-up subscriptions, to a stream, to `$all`, and to a category."""

from kurrentdbclient import CaughtUp, Checkpoint
from kurrentdbclient.exceptions import GrpcDeadlineExceededError, StreamIsDeletedError

from common import (
    ANY,
    NO_STREAM,
    check,
    equal,
    event,
    events,
    ids,
    is_event,
    name,
    next_of,
    raises,
    stopping,
    take,
    take_until,
)


async def a_stream_from_its_start(client):
    stream, new = name(), events(6)
    await client.append_to_stream(stream, current_version=NO_STREAM, events=new[:3])
    async with stopping(client.subscribe_to_stream(stream)) as subscription:
        check(subscription.subscription_id, "the subscription has no id")
        equal(ids(await take(subscription, 3)), ids(new[:3]))
        await client.append_to_stream(stream, current_version=2, events=new[3])
        equal((await next_of(subscription)).id, new[3].id)
        await client.append_to_stream(name(), current_version=ANY, events=event())
        await client.append_to_stream(stream, current_version=3, events=new[4:])
        found = await take(subscription, 2)
        equal(ids(found), ids(new[4:]))
        equal([(it.stream_name, it.stream_position) for it in found], [(stream, 4), (stream, 5)])


async def a_stream_after_a_revision(client):
    stream, new = name(), events(5)
    await client.append_to_stream(stream, current_version=NO_STREAM, events=new[:4])
    async with stopping(client.subscribe_to_stream(stream, stream_position=1)) as subscription:
        equal(ids(await take(subscription, 2)), ids(new[2:4]))
        await client.append_to_stream(stream, current_version=3, events=new[4])
        equal((await next_of(subscription)).id, new[4].id)


async def a_stream_from_its_end(client):
    stream, new = name(), events(3)
    await client.append_to_stream(stream, current_version=NO_STREAM, events=new[:2])
    subscribing = client.subscribe_to_stream(stream, from_end=True, include_caught_up=True)
    async with stopping(subscribing) as subscription:
        check(
            isinstance(await next_of(subscription), CaughtUp),
            "the first message is not that it caught up",
        )
        await client.append_to_stream(stream, current_version=1, events=new[2])
        equal((await next_of(subscription)).id, new[2].id)


async def a_stream_that_is_not_there_yet(client):
    stream, one = name(), event()
    async with stopping(client.subscribe_to_stream(stream, include_caught_up=True)) as subscription:
        check(
            isinstance(await next_of(subscription), CaughtUp),
            "the first message is not that it caught up",
        )
        await client.append_to_stream(stream, current_version=NO_STREAM, events=one)
        equal((await next_of(subscription)).id, one.id)


async def a_stream_that_was_tombstoned(client):
    stream = name()
    await client.append_to_stream(stream, current_version=NO_STREAM, events=event())
    await client.tombstone_stream(stream, current_version=ANY)
    with raises(StreamIsDeletedError):
        async with stopping(client.subscribe_to_stream(stream)) as subscription:
            await next_of(subscription)


async def says_when_it_caught_up(client):
    stream, new = name(), events(4)
    start = await client.append_to_stream(stream, current_version=NO_STREAM, events=new[:3])
    async with stopping(client.subscribe_to_stream(stream, include_caught_up=True)) as subscription:
        found = await take(subscription, 4)
        equal(ids(found[:3]), ids(new[:3]))
        check(isinstance(found[3], CaughtUp), f"after the events came {found[3]}")
        equal(found[3].stream_position, 2)
        check(found[3].recorded_at is not None, "the message has no time")
        await client.append_to_stream(stream, current_version=2, events=new[3])
        equal((await next_of(subscription)).id, new[3].id)
    async with stopping(
        client.subscribe_to_all(commit_position=start, include_caught_up=True)
    ) as subscription:
        found = await take_until(subscription, lambda it: isinstance(it, CaughtUp))
        equal(ids(found[:-1]), [new[3].id])
        check(
            found[-1].commit_position >= found[0].commit_position,
            "it caught up before the last event",
        )


async def all_after_a_position(client):
    stream, other, new = name(), name(), events(7)
    await client.append_to_stream(stream, current_version=NO_STREAM, events=event())
    start = await client.append_to_stream(stream, current_version=0, events=event())
    await client.append_to_stream(stream, current_version=1, events=new[:2])
    await client.append_to_stream(other, current_version=ANY, events=new[2:4])
    async with stopping(client.subscribe_to_all(commit_position=start)) as subscription:
        found = await take(subscription, 4)
        equal(ids(found), ids(new[:4]))
        await client.append_to_stream(stream, current_version=3, events=new[4])
        equal((await next_of(subscription)).id, new[4].id)
        await client.append_to_stream(other, current_version=1, events=new[5:])
        equal(ids(await take(subscription, 2)), ids(new[5:]))
    async with stopping(
        client.subscribe_to_all(commit_position=found[1].commit_position)
    ) as subscription:
        equal(ids(await take(subscription, 5)), ids(new[2:]))


async def all_from_start_and_end(client):
    stream, new = name(), events(2)
    await client.append_to_stream(stream, current_version=NO_STREAM, events=new[0])
    reading = await client.read_all(limit=1)
    first = [it.id async for it in reading]
    async with stopping(client.subscribe_to_all()) as subscription:
        equal([(await next_of(subscription)).id], first)
        await take_until(subscription, lambda it: it.id == new[0].id)
    subscribing = client.subscribe_to_all(from_end=True, include_caught_up=True)
    async with stopping(subscribing) as subscription:
        check(
            isinstance(await next_of(subscription), CaughtUp),
            "the first message is not that it caught up",
        )
        await client.append_to_stream(stream, current_version=0, events=new[1])
        equal((await next_of(subscription)).id, new[1].id)


async def filters(client):
    tag, new = name("f"), [event("Placed"), event("Paid"), event("Placed"), event("Paid")]
    order, cart = f"{tag}-order", f"{tag}-cart"
    start = await client.append_to_stream(order, current_version=NO_STREAM, events=new[0])
    await client.append_to_stream(cart, current_version=NO_STREAM, events=new[1])
    by_name = {"commit_position": start - 1, "filter_by_stream_name": True}
    for options, wanted in [
        ({"filter_include": [f"{tag}-o.*"], **by_name}, (0, 2)),
        ({"filter_include": [f"{tag}-c"], "filter_by_prefix": True, **by_name}, (1, 3)),
        (
            {"filter_include": [f"{tag}-c", f"{tag}-o"], "filter_by_prefix": True, **by_name},
            (0, 1, 2, 3),
        ),
        ({"filter_exclude": [f"{tag}-o.*"], **by_name}, (1, 3)),
        ({"filter_include": ["Placed"], "commit_position": start - 1}, (0, 2)),
        ({"filter_exclude": ["P.a.*"], "commit_position": start - 1}, (1, 3)),
    ]:
        check(start > 0, "the position is 0")
        async with stopping(client.subscribe_to_all(**options)) as subscription:
            live = [event(it.type) for it in new[2:]]
            caught_up = [new[index].id for index in wanted if index < 2]
            equal(
                ids(await take(subscription, len(caught_up))),
                caught_up,
                f"{options}: what was there",
            )
            # These streams also have the events of the other rounds.
            await client.append_to_stream(order, current_version=ANY, events=live[0])
            await client.append_to_stream(cart, current_version=ANY, events=live[1])
            expected = [live[index - 2].id for index in wanted if index >= 2]
            found = await take_until(subscription, lambda it: it.id == expected[-1])
            equal(ids(found)[-len(expected) :], expected, f"{options}: what came")
            types = {it.type for it in found} | {it.stream_name for it in found}
            hidden = {0: {"Placed", order}, 1: {"Paid", cart}}
            for index in {0, 1} - set(wanted):
                check(not types & hidden[index], f"{options}: gave {types}")


async def checkpoints_of_a_filter(client):
    tag = name("f")
    start = await client.append_to_stream(name(), current_version=ANY, events=event())
    wanted = event()
    last = await client.append_to_stream(name(), current_version=ANY, events=events(60))
    options = {
        "filter_include": [f"{tag}.*"],
        "filter_by_stream_name": True,
        "include_checkpoints": True,
        "window_size": 5,
        "checkpoint_interval_multiplier": 2,
    }
    async with stopping(client.subscribe_to_all(commit_position=start, **options)) as subscription:
        passed = await take_until(subscription, lambda it: it.commit_position >= last)
        check(all(isinstance(it, Checkpoint) for it in passed), f"what came is {passed}")
        positions = [it.commit_position for it in passed]
        equal(positions, sorted(positions))
        check(len(passed) >= 6, f"{len(passed)} checkpoints over 60 events, one for each 10")
        # Live events that do not match are left out, too.
        await client.append_to_stream(name(), current_version=ANY, events=events(20))
        live = (await take_until(subscription, lambda it: it.commit_position > last))[-1]
        check(isinstance(live, Checkpoint), f"what came is {live}")
        position = await client.append_to_stream(
            f"{tag}-1", current_version=NO_STREAM, events=wanted
        )
        found = (await take_until(subscription, is_event))[-1]
        equal((found.id, found.commit_position), (wanted.id, position))
    # A subscription from a checkpoint misses no event.
    async with stopping(
        client.subscribe_to_all(commit_position=live.commit_position, **options)
    ) as subscription:
        equal((await take_until(subscription, is_event))[-1].id, wanted.id)
    async with stopping(
        client.subscribe_to_all(commit_position=position, **options)
    ) as subscription:
        later = event()
        await client.append_to_stream(f"{tag}-1", current_version=0, events=later)
        equal((await take_until(subscription, is_event))[-1].id, later.id)


async def a_category_with_its_links(client):
    category = name("cat").replace("-", "")
    ce, new = f"$ce-{category}", events(4)
    await client.append_to_stream(f"{category}-1", current_version=ANY, events=new[0])
    await client.append_to_stream(f"{category}-2", current_version=ANY, events=new[1])
    async with stopping(client.subscribe_to_stream(ce, resolve_links=True)) as subscription:
        found = await take(subscription, 2)
        await client.append_to_stream(f"{category}-1", current_version=ANY, events=new[2])
        await client.append_to_stream(name(), current_version=ANY, events=event())
        await client.append_to_stream(f"{category}-3", current_version=ANY, events=new[3])
        found += await take(subscription, 2)
        equal(ids(found), ids(new))
        equal({it.link.stream_name for it in found}, {ce})
    after = found[1].link.stream_position
    async with stopping(
        client.subscribe_to_stream(ce, resolve_links=True, stream_position=after)
    ) as subscription:
        equal(ids(await take(subscription, 2)), ids(new[2:]))


async def many_events_live_and_not(client):
    stream, new = name(), events(1000)
    await client.append_to_stream(stream, current_version=NO_STREAM, events=new[:400])
    async with stopping(client.subscribe_to_stream(stream)) as subscription:
        found = await take(subscription, 10)
        for start in range(400, 1000, 100):
            await client.append_to_stream(
                stream, current_version=ANY, events=new[start : start + 100]
            )
        found += await take(subscription, 990)
        equal([it.stream_position for it in found], list(range(1000)))
        equal(ids(found), ids(new))


async def deadlines(client):
    stream, one = name(), event()
    await client.append_to_stream(stream, current_version=NO_STREAM, events=one)
    for subscribing in (
        client.subscribe_to_stream(stream, timeout=0.5),
        client.subscribe_to_all(filter_include=[name("Type")], timeout=0.5),
    ):
        with raises(GrpcDeadlineExceededError):
            async with stopping(subscribing) as subscription:
                await take_until(subscription, lambda it: it.id != one.id)


CASES = [
    a_stream_from_its_start,
    a_stream_after_a_revision,
    a_stream_from_its_end,
    a_stream_that_is_not_there_yet,
    a_stream_that_was_tombstoned,
    says_when_it_caught_up,
    all_after_a_position,
    all_from_start_and_end,
    filters,
    checkpoints_of_a_filter,
    a_category_with_its_links,
    many_events_live_and_not,
    deadlines,
]
