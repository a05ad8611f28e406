"""Persistent subscriptions: groups of consumers whose progress the server keeps."""

import asyncio

from common import (
    ANY,
    NO_STREAM,
    PATIENCE,
    check,
    equal,
    event,
    events,
    ids,
    name,
    next_of,
    stopping,
    take,
    until,
)

# Consumers send each answer at once.
PROMPT = {"max_ack_delay": 0.01}


async def group_of(client, count, **options):
    """Creates a stream with events and a group on it. Returns their names and the events."""
    stream, group, new = name(), name("group"), events(count)
    if new:
        await client.append_to_stream(stream, current_version=NO_STREAM, events=new)
    await client.create_subscription_to_stream(group, stream, **options)
    return stream, group, new


def consumer(client, stream, group, **options):
    return stopping(client.read_subscription_to_stream(group, stream, **PROMPT, **options))


async def is_silent(client, stream, group):
    """Checks that a new consumer gets only the event that is appended now."""
    one = event()
    await client.append_to_stream(stream, current_version=ANY, events=one)
    async with consumer(client, stream, group) as subscription:
        found = await next_of(subscription)
        await subscription.ack(found)
        equal(found.id, one.id, "what is left")
        await acked(client, group, stream)


async def acked(client, group, stream=None):
    async def probe():
        info = await client.get_subscription_info(group, stream)
        return info.total_in_flight_messages == 0

    await until(probe, "every event is acknowledged")


async def parked(client, count, group, stream=None):
    async def probe():
        return (await client.get_subscription_info(group, stream)).parked_message_count == count

    await until(probe, f"{count} events are parked")


async def a_stream_is_consumed(client):
    stream, group, new = await group_of(client, 5)
    async with consumer(client, stream, group) as subscription:
        equal(subscription.subscription_id, f"{stream}::{group}")
        found = await take(subscription, 5)
        equal(ids(found), ids(new))
        equal([it.stream_position for it in found], list(range(5)))
        equal({it.retry_count for it in found}, {0})
        for it in found:
            await subscription.ack(it)
        live = event()
        await client.append_to_stream(stream, current_version=4, events=live)
        it = await next_of(subscription)
        equal((it.id, it.stream_position), (live.id, 5))
        await subscription.ack(it.id)
        await acked(client, group, stream)
    await is_silent(client, stream, group)


async def what_is_not_acknowledged_comes_again(client):
    stream, group, new = await group_of(client, 4)
    async with consumer(client, stream, group) as subscription:
        found = await take(subscription, 4)
        await subscription.ack(found[0])
        await subscription.ack(found[1])

        async def probe():
            return (await client.get_subscription_info(group, stream)).total_in_flight_messages == 2

        await until(probe, "two events are acknowledged")
    async with consumer(client, stream, group) as subscription:
        found = await take(subscription, 2)
        equal(sorted(ids(found)), sorted(ids(new[2:])))


async def starts_where_it_is_told(client):
    stream, new = name(), events(4)
    await client.append_to_stream(stream, current_version=NO_STREAM, events=new[:3])
    middle, end = name("group"), name("group")
    await client.create_subscription_to_stream(middle, stream, stream_position=1)
    await client.create_subscription_to_stream(end, stream, from_end=True)
    equal((await client.get_subscription_info(middle, stream)).start_from, "1")
    equal((await client.get_subscription_info(end, stream)).start_from, "-1")
    async with consumer(client, stream, middle) as subscription:
        # The group begins with the event at the position.
        equal(ids(await take(subscription, 2)), ids(new[1:3]))
    async with consumer(client, stream, end) as subscription:
        await client.append_to_stream(stream, current_version=2, events=new[3])
        equal((await next_of(subscription)).id, new[3].id)


async def a_stream_that_is_not_there_yet(client):
    stream, group, _ = await group_of(client, 0)
    async with consumer(client, stream, group) as subscription:
        one = event()
        await client.append_to_stream(stream, current_version=NO_STREAM, events=one)
        equal((await next_of(subscription)).id, one.id)


async def retry(client):
    stream, group, new = await group_of(client, 2)
    async with consumer(client, stream, group) as subscription:
        found = await take(subscription, 2)
        await subscription.ack(found[1])
        for count in (1, 2):
            await subscription.nack(new[0].id, "retry")
            it = await next_of(subscription)
            equal((it.id, it.retry_count), (new[0].id, count))
        await subscription.ack(it)
        await acked(client, group, stream)
    await is_silent(client, stream, group)


async def skip(client):
    stream, group, new = await group_of(client, 2)
    async with consumer(client, stream, group) as subscription:
        for it in await take(subscription, 2):
            await subscription.nack(it, "skip")
        await acked(client, group, stream)
    equal((await client.get_subscription_info(group, stream)).parked_message_count, 0)
    await is_silent(client, stream, group)


async def park_and_replay(client):
    stream, group, new = await group_of(client, 3)
    async with consumer(client, stream, group) as subscription:
        found = await take(subscription, 3)
        await subscription.nack(found[0], "park")
        await subscription.ack(found[1])
        await subscription.nack(found[2], "park")
        await parked(client, 2, group, stream)
        await client.replay_parked_events(group, stream)
        again = await take(subscription, 2)
        equal(ids(again), [new[0].id, new[2].id])
        equal([it.stream_name for it in again], [stream] * 2)
        for it in again:
            await subscription.ack(it)
        await parked(client, 0, group, stream)
        await acked(client, group, stream)
    await is_silent(client, stream, group)


async def too_many_retries_park(client):
    stream, group, new = await group_of(client, 1, max_retry_count=2)
    async with consumer(client, stream, group) as subscription:
        for count in (0, 1, 2):
            it = await next_of(subscription)
            equal((it.id, it.retry_count), (new[0].id, count))
            await subscription.nack(it, "retry")
        await parked(client, 1, group, stream)


async def no_answer_in_time_comes_again(client):
    stream, group, new = await group_of(client, 1, message_timeout=0.3)
    async with consumer(client, stream, group) as subscription:
        equal((await next_of(subscription)).retry_count, 0)
        it = await next_of(subscription)
        equal((it.id, it.retry_count), (new[0].id, 1))
        await subscription.ack(it)
        await acked(client, group, stream)


async def consumers_share(client):
    stream, group, _ = await group_of(client, 0, consumer_strategy="RoundRobin")
    async with consumer(client, stream, group) as one, consumer(client, stream, group) as two:
        new = events(10)
        await client.append_to_stream(stream, current_version=NO_STREAM, events=new)
        first, second = await take(one, 5), await take(two, 5)
        equal(sorted(ids(first) + ids(second)), sorted(ids(new)))
        info = await client.get_subscription_info(group, stream)
        equal(len(info.connections), 2, "the number of connections")


async def one_gets_all_it_can_take(client):
    stream, group, new = await group_of(client, 10, consumer_strategy="DispatchToSingle")
    async with consumer(client, stream, group) as one, consumer(client, stream, group):
        equal(ids(await take(one, 10)), ids(new))


async def what_belongs_together_goes_to_one(client):
    for strategy, key in [
        ("Pinned", lambda it: it.stream_name),
        ("PinnedByCorrelation", lambda it: it.metadata),
    ]:
        tag, group = name("f"), name("group")
        await client.create_subscription_to_all(
            group,
            from_end=True,
            filter_include=[f"{tag}.*"],
            filter_by_stream_name=True,
            consumer_strategy=strategy,
        )
        equal((await client.get_subscription_info(group)).consumer_strategy, strategy)
        async with (
            stopping(client.read_subscription_to_all(group, **PROMPT)) as one,
            stopping(client.read_subscription_to_all(group, **PROMPT)) as two,
        ):
            for turn in range(4):
                for stream in range(10):
                    correlation = b'{"$correlationId":"%d"}' % ((turn + stream) % 8)
                    await client.append_to_stream(
                        f"{tag}-{stream}", current_version=ANY, events=event(metadata=correlation)
                    )
            found = await drained([one, two], 40)
            equal(len({it.id for items in found for it in items}), 40, "the number of events")
            both = {key(it) for it in found[0]} & {key(it) for it in found[1]}
            equal(both, set(), f"{strategy}: what both consumers got")
        await client.delete_subscription(group)


async def drained(subscriptions, count):
    """The events that each consumer gets, until `count` events were acknowledged."""
    found, full = [[] for _ in subscriptions], asyncio.Event()

    async def drain(subscription, items):
        async for it in subscription:
            await subscription.ack(it)
            items.append(it)
            if sum(map(len, found)) >= count:
                full.set()

    tasks = [asyncio.create_task(drain(*pair)) for pair in zip(subscriptions, found)]
    try:
        await asyncio.wait_for(full.wait(), PATIENCE)
    except asyncio.TimeoutError:
        raise AssertionError(
            f"only {[len(items) for items in found]} of {count} events came"
        ) from None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return found


async def a_buffer_bounds_what_is_sent(client):
    stream, group, new = await group_of(client, 30)
    async with consumer(client, stream, group, event_buffer_size=2) as subscription:
        for expected in new:
            it = await next_of(subscription)
            equal(it.id, expected.id)
            info = await client.get_subscription_info(group, stream)
            check(
                info.total_in_flight_messages <= 2,
                f"{info.total_in_flight_messages} events are in flight",
            )
            await subscription.ack(it)


async def to_all(client):
    tag, group, new = name("f"), name("group"), events(4)
    start = await client.append_to_stream(f"{tag}-1", current_version=NO_STREAM, events=new[0])
    await client.append_to_stream(name(), current_version=NO_STREAM, events=events(20))
    await client.append_to_stream(f"{tag}-2", current_version=NO_STREAM, events=new[1])
    await client.create_subscription_to_all(
        group, commit_position=start, filter_include=[f"{tag}.*"], filter_by_stream_name=True
    )
    info = await client.get_subscription_info(group)
    equal((info.event_source, info.group_name), ("$all", group))
    equal(info.start_from, f"C:{start}/P:{start}")
    async with stopping(client.read_subscription_to_all(group, **PROMPT)) as subscription:
        equal(subscription.subscription_id, f"$all::{group}")
        # The group begins with the event at the position.
        found = await take(subscription, 2)
        equal(ids(found), ids(new[:2]))
        equal([it.stream_name for it in found], [f"{tag}-1", f"{tag}-2"])
        await subscription.nack(found[0], "park")
        await subscription.ack(found[1])
        await client.append_to_stream(name(), current_version=NO_STREAM, events=event())
        await client.append_to_stream(f"{tag}-1", current_version=0, events=new[2])
        it = await next_of(subscription)
        equal(it.id, new[2].id)
        await subscription.ack(it)
        await parked(client, 1, group)
        await client.replay_parked_events(group)
        it = await next_of(subscription)
        equal(it.id, new[0].id)
        await subscription.ack(it)
        await acked(client, group)
    await client.append_to_stream(f"{tag}-1", current_version=1, events=new[3])
    async with stopping(client.read_subscription_to_all(group, **PROMPT)) as subscription:
        equal((await next_of(subscription)).id, new[3].id)
    await client.delete_subscription(group)


async def to_all_from_the_end(client):
    group, kind = name("group"), name("Type")
    await client.append_to_stream(name(), current_version=NO_STREAM, events=event(kind))
    await client.create_subscription_to_all(group, from_end=True, filter_include=[kind])
    equal((await client.get_subscription_info(group)).start_from, "C:-1/P:-1")
    one = event(kind)
    async with stopping(client.read_subscription_to_all(group, **PROMPT)) as subscription:
        await client.append_to_stream(name(), current_version=NO_STREAM, events=one)
        equal((await next_of(subscription)).id, one.id)
    await client.delete_subscription(group)


async def resolves_links(client):
    category, group = name("cat").replace("-", ""), name("group")
    ce, new = f"$ce-{category}", events(3)
    await client.append_to_stream(f"{category}-1", current_version=NO_STREAM, events=new[:2])
    await client.create_subscription_to_stream(group, ce, resolve_links=True)
    async with consumer(client, ce, group) as subscription:
        found = await take(subscription, 2)
        equal(ids(found), ids(new[:2]))
        equal([it.link.stream_name for it in found], [ce] * 2)
        # The client acknowledges the link, not the event that the link leads to.
        await subscription.nack(found[0], "retry")
        again = await next_of(subscription)
        equal((again.id, again.retry_count), (new[0].id, 1))
        await subscription.ack(again)
        await subscription.ack(found[1])
        await client.append_to_stream(f"{category}-2", current_version=NO_STREAM, events=new[2])
        it = await next_of(subscription)
        equal(it.id, new[2].id)
        await subscription.ack(it)
        await acked(client, group, ce)


CASES = [
    a_stream_is_consumed,
    what_is_not_acknowledged_comes_again,
    starts_where_it_is_told,
    a_stream_that_is_not_there_yet,
    retry,
    skip,
    park_and_replay,
    too_many_retries_park,
    no_answer_in_time_comes_again,
    consumers_share,
    one_gets_all_it_can_take,
    what_belongs_together_goes_to_one,
    a_buffer_bounds_what_is_sent,
    to_all,
    to_all_from_the_end,
    resolves_links,
]
