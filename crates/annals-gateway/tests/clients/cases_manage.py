"""Persistent subscriptions: their settings, lists, limits, and ends."""

from kurrentdbclient.exceptions import (
    AlreadyExistsError,
    CancelledError,
    MaximumSubscriptionsReachedError,
    NotFoundError,
)

from cases_groups import PROMPT, consumer, group_of, parked
from common import NO_STREAM, check, equal, event, name, next_of, raises, until

SETTINGS = {
    "resolve_links": True,
    "consumer_strategy": "Pinned",
    "message_timeout": 12.5,
    "max_retry_count": 7,
    "min_checkpoint_count": 3,
    "max_checkpoint_count": 300,
    "checkpoint_after": 1.5,
    "max_subscriber_count": 4,
    "live_buffer_size": 60,
    "read_batch_size": 25,
    "history_buffer_size": 70,
    "extra_statistics": True,
}


async def settings_are_kept_and_changed(client):
    stream, group, _ = await group_of(client, 3, **SETTINGS)
    info = await client.get_subscription_info(group, stream)
    equal((info.event_source, info.group_name, info.start_from), (stream, group, "0"))
    equal({key: getattr(info, key) for key in SETTINGS}, SETTINGS)
    equal((info.connections, info.parked_message_count), ([], 0))
    changed = {"resolve_links": False, "consumer_strategy": "RoundRobin", "max_retry_count": 1}
    await client.update_subscription_to_stream(group, stream, **changed)
    info = await client.get_subscription_info(group, stream)
    equal({key: getattr(info, key) for key in SETTINGS}, SETTINGS | changed)
    everywhere = name("group")
    await client.create_subscription_to_all(everywhere)
    equal((await client.get_subscription_info(everywhere)).start_from, "C:0/P:0")
    await client.update_subscription_to_all(everywhere, message_timeout=2.0)
    equal((await client.get_subscription_info(everywhere)).message_timeout, 2.0)
    await client.delete_subscription(everywhere)
    with raises(NotFoundError):
        await client.update_subscription_to_all(name("group"), message_timeout=2.0)
    with raises(NotFoundError):
        await client.update_subscription_to_stream(name("group"), stream, message_timeout=2.0)


async def a_new_start_is_kept(client):
    stream, group, _ = await group_of(client, 3)
    await client.update_subscription_to_stream(group, stream, stream_position=2)
    equal((await client.get_subscription_info(group, stream)).start_from, "2")
    await client.update_subscription_to_stream(group, stream, from_end=True)
    equal((await client.get_subscription_info(group, stream)).start_from, "-1")


async def lists(client):
    stream, group, _ = await group_of(client, 1)
    second, everywhere = name("group"), name("group")
    await client.create_subscription_to_stream(second, stream)
    await client.create_subscription_to_all(everywhere)
    listed = await client.list_subscriptions_to_stream(stream)
    equal(sorted(it.group_name for it in listed), sorted([group, second]))
    equal({it.event_source for it in listed}, {stream})
    all_of_them = {(it.event_source, it.group_name) for it in await client.list_subscriptions()}
    check(
        {(stream, group), (stream, second), ("$all", everywhere)} <= all_of_them,
        f"listed: {all_of_them}",
    )
    await client.delete_subscription(second, stream)
    await client.delete_subscription(everywhere)
    equal([it.group_name for it in await client.list_subscriptions_to_stream(stream)], [group])
    equal(await client.list_subscriptions_to_stream(name()), [])


async def a_group_exists_once(client):
    stream, group, _ = await group_of(client, 1)
    with raises(AlreadyExistsError):
        await client.create_subscription_to_stream(group, stream)
    # A group of the same name on another stream is a different group.
    await client.create_subscription_to_stream(group, name())
    await client.create_subscription_to_all(group)
    with raises(AlreadyExistsError):
        await client.create_subscription_to_all(group)
    await client.delete_subscription(group)


async def a_missing_group_is_not_found(client):
    stream, group = name(), name("group")
    await client.append_to_stream(stream, current_version=NO_STREAM, events=event())
    for arguments in [(group, stream), (group,)]:
        with raises(NotFoundError):
            await client.get_subscription_info(*arguments)
        with raises(NotFoundError):
            await client.delete_subscription(*arguments)
        with raises(NotFoundError):
            await client.replay_parked_events(*arguments)
    with raises(NotFoundError):
        await client.read_subscription_to_stream(group, stream)
    with raises(NotFoundError):
        await client.read_subscription_to_all(group)


async def subscribers_are_counted(client):
    stream, group, _ = await group_of(client, 1, max_subscriber_count=2)
    async with consumer(client, stream, group), consumer(client, stream, group):
        with raises(MaximumSubscriptionsReachedError):
            await client.read_subscription_to_stream(group, stream)

    async def probe():
        return not (await client.get_subscription_info(group, stream)).connections

    await until(probe, "the consumers are gone")
    async with consumer(client, stream, group) as subscription:
        await next_of(subscription)


async def deleting_a_group_ends_its_consumers(client):
    stream, group, _ = await group_of(client, 1)
    subscription = await client.read_subscription_to_stream(group, stream, **PROMPT)
    await next_of(subscription)
    await client.delete_subscription(group, stream)
    with raises(CancelledError):
        await next_of(subscription)
    with raises(NotFoundError):
        await client.read_subscription_to_stream(group, stream)
    # A new group of the same name begins without a checkpoint.
    await client.create_subscription_to_stream(group, stream)
    async with consumer(client, stream, group) as subscription:
        equal((await next_of(subscription)).retry_count, 0)


async def names_of_every_language(client):
    stream, group = name("注文-🎉"), name("Gruppe ä::%")
    one = event()
    await client.append_to_stream(stream, current_version=NO_STREAM, events=one)
    await client.create_subscription_to_stream(group, stream)
    equal((await client.get_subscription_info(group, stream)).event_source, stream)
    async with consumer(client, stream, group) as subscription:
        it = await next_of(subscription)
        equal((it.id, it.stream_name), (one.id, stream))
        await subscription.nack(it, "park")
        await parked(client, 1, group, stream)
    with raises(AlreadyExistsError):
        await client.create_subscription_to_stream(group, stream)
    await client.delete_subscription(group, stream)
    with raises(NotFoundError):
        await client.delete_subscription(group, stream)


CASES = [
    settings_are_kept_and_changed,
    a_new_start_is_kept,
    lists,
    a_group_exists_once,
    a_missing_group_is_not_found,
    subscribers_are_counted,
    deleting_a_group_ends_its_consumers,
    names_of_every_language,
]
