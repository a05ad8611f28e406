"""Appends: every expectation and its error, retries, sizes, deadlines.

The synchronous client sends one event by Append, and a list of events by BatchAppend."""

import asyncio
import os
import threading
from datetime import datetime, timedelta, timezone

from kurrentdbclient import KurrentDBClient
from kurrentdbclient.exceptions import (
    GrpcDeadlineExceededError,
    GrpcError,
    MaximumAppendSizeExceededError,
    NotFoundError,
    WrongCurrentVersionError,
)

from common import (
    ANY,
    BINARY,
    EXISTS,
    JSON,
    NO_STREAM,
    PATIENCE,
    check,
    equal,
    event,
    events,
    ids,
    name,
    raises,
)

MIB = 1024 * 1024


async def append(client, stream, version, new):
    return await client.append_to_stream(stream, current_version=version, events=new)


async def both(test, client):
    """Runs a test with one event, and with a list of one event."""
    await test(client, lambda one: one)
    await test(client, lambda one: [one])


async def any_always_holds(client):
    async def test(client, of):
        stream, first, second = name(), event(), event()
        one = await append(client, stream, ANY, of(first))
        two = await append(client, stream, ANY, of(second))
        check(two > one, f"the positions {one} and {two} do not rise")
        equal(ids(await client.get_stream(stream)), [first.id, second.id])

    await both(test, client)


async def no_stream_holds_once(client):
    async def test(client, of):
        stream, first = name(), event()
        await append(client, stream, NO_STREAM, of(first))
        with raises(
            WrongCurrentVersionError,
            stream_name=stream,
            actual_version=0,
            expected_version=NO_STREAM,
        ) as raised:
            await append(client, stream, NO_STREAM, of(event()))
        equal(raised.error.args[0], "Stream position of last event is 0 not StreamState.NO_STREAM")
        equal(ids(await client.get_stream(stream)), [first.id])

    await both(test, client)


async def stream_exists_needs_one(client):
    async def test(client, of):
        stream, first, second = name(), event(), event()
        with raises(
            WrongCurrentVersionError,
            stream_name=stream,
            actual_version=NO_STREAM,
            expected_version=EXISTS,
        ):
            await append(client, stream, EXISTS, of(first))
        await append(client, stream, NO_STREAM, of(first))
        await append(client, stream, EXISTS, of(second))
        equal(ids(await client.get_stream(stream)), [first.id, second.id])

    await both(test, client)


async def exact_has_to_be_the_last(client):
    async def test(client, of):
        stream, first, second = name(), event(), event()
        with raises(
            WrongCurrentVersionError,
            stream_name=stream,
            actual_version=NO_STREAM,
            expected_version=1,
        ) as raised:
            await append(client, stream, 1, of(first))
        equal(raised.error.args[0], f"Stream {stream!r} does not exist")
        await append(client, stream, NO_STREAM, of(first))
        await append(client, stream, 0, of(second))
        for wrong in (0, 2, 7):
            with raises(
                WrongCurrentVersionError,
                stream_name=stream,
                actual_version=1,
                expected_version=wrong,
            ):
                await append(client, stream, wrong, of(event()))
        equal(await client.get_current_version(stream), 1)

    await both(test, client)


async def a_batch_is_whole_and_in_order(client):
    stream, new = name(), events(100)
    position = await append(client, stream, NO_STREAM, new)
    found = await client.get_stream(stream)
    equal(ids(found), ids(new))
    equal([it.stream_position for it in found], list(range(100)))
    equal(found[-1].commit_position, position, "the last position")
    positions = [it.commit_position for it in found]
    check(positions == sorted(set(positions)), "the positions do not rise")
    with raises(WrongCurrentVersionError, actual_version=99, expected_version=5):
        await append(client, stream, 5, events(3))
    equal(len(await client.get_stream(stream)), 100, "the number of events")


async def retries_write_nothing(client):
    stream = name()
    one, two, three, four = events(4)
    first = await append(client, stream, NO_STREAM, one)
    second = await append(client, stream, 0, two)
    third = await append(client, stream, 1, three)
    equal(await append(client, stream, NO_STREAM, one), first)
    equal(await append(client, stream, 0, two), second)
    equal(await append(client, stream, 1, three), third)
    equal(await append(client, stream, NO_STREAM, [one, two]), second)
    equal(await append(client, stream, 0, [two, three]), third)
    equal(await append(client, stream, NO_STREAM, [one, two, three]), third)
    for expected, new in [
        (0, [two, three, four]),
        (0, [three]),
        (NO_STREAM, [two]),
        (0, [three, two]),
    ]:
        with raises(WrongCurrentVersionError, actual_version=2, expected_version=expected):
            await append(client, stream, expected, new)
    equal(ids(await client.get_stream(stream)), ids([one, two, three]))


async def an_id_is_no_key(client):
    """If the expected revision is right, an event with an id that was used before is a new event."""
    stream, one = name(), event()
    await append(client, stream, NO_STREAM, one)
    await append(client, stream, 0, one)
    await append(client, name(), NO_STREAM, one)
    equal(ids(await client.get_stream(stream)), [one.id, one.id])


async def what_is_written_is_what_is_read(client):
    stream = name()
    every_byte = bytes(range(256))
    new = [
        event(
            "Json",
            b'{"b": 1.10,  "a": "\\u0000", "b": 2}',
            metadata=b'{"$correlationId": "c",\n"x":1e3}',
        ),
        event("Not json, and called so", b"{", metadata=every_byte, content_type=JSON),
        event("Binary", every_byte, metadata=b"\x00", content_type=BINARY),
        event("Json in binary", b'{"a":1}', metadata=b"", content_type=BINARY),
        event("Empty", b"", metadata=b""),
        event("Заказ 注文 🎉 %_'\"\\ ", b"[]", metadata=b"null"),
    ]
    before = datetime.now(timezone.utc)
    position = await append(client, stream, NO_STREAM, new)
    found = await client.get_stream(stream)
    equal(len(found), len(new), "the number of events")
    for index, (one, sent) in enumerate(zip(found, new)):
        for field in ("id", "type", "data", "metadata", "content_type"):
            equal(getattr(one, field), getattr(sent, field), f"{sent.type}: {field}")
        equal((one.stream_name, one.stream_position, one.link), (stream, index, None))
        equal(one.commit_position, one.prepare_position)
        check(
            abs(one.recorded_at - before) < timedelta(minutes=1), f"recorded at {one.recorded_at}"
        )
    equal(found[-1].commit_position, position)


async def names_of_every_language(client):
    for stream in [
        "заказ-",
        "注文-🎉-",
        "%_'\"\\/?#@ -",
        "Order-",
        "order with  spaces -",
        "a:b::c-",
    ]:
        stream = name(stream)
        await append(client, stream, NO_STREAM, events(2))
        with raises(WrongCurrentVersionError, stream_name=stream, actual_version=1):
            await append(client, stream, NO_STREAM, events(1))
        found = await client.get_stream(stream)
        equal([it.stream_name for it in found], [stream] * 2)
        await client.set_stream_metadata(stream, metadata={"name": stream})
        equal((await client.get_stream_metadata(stream))[0], {"name": stream})
        with raises(
            WrongCurrentVersionError, stream_name=stream, actual_version=1, expected_version=7
        ):
            await client.delete_stream(stream, current_version=7)
        await client.delete_stream(stream, current_version=1)
        with raises(NotFoundError):
            await client.get_stream(stream)


async def an_event_of_almost_a_mebibyte(client):
    stream, data = name(), os.urandom(MIB - 4096)
    await append(client, stream, NO_STREAM, event(data=data, content_type=BINARY))
    await append(client, stream, 0, [event(data=data, content_type=BINARY)])
    check(all(it.data == data for it in await client.get_stream(stream)), "the data is another")


async def more_than_a_mebibyte_is_refused(client):
    stream = name()
    for size in (MIB + 1, 2 * MIB, 4 * MIB):
        with raises(MaximumAppendSizeExceededError) as raised:
            await append(client, stream, NO_STREAM, [event(data=b"x" * size)])
        equal(str(raised.error), f"Max size is {MIB}")
    with raises(MaximumAppendSizeExceededError):
        await append(client, stream, NO_STREAM, events(40, data=b"x" * (MIB // 32)))
    with raises(NotFoundError):
        await client.get_stream(stream)
    await append(client, stream, NO_STREAM, events(1))


async def more_than_a_mebibyte_alone_is_refused(client):
    """For Append, this client has no class for the error, so compare the text."""
    if not hasattr(client, "inner"):
        return
    stream = name()
    for size in (MIB + 1, 2 * MIB):
        with raises(GrpcError) as raised:
            await append(client, stream, NO_STREAM, event(data=b"x" * size))
        check("Maximum Append Size" in str(raised.error), raised.error)
    with raises(NotFoundError):
        await client.get_stream(stream)


async def what_is_not_complete_in_time_is_not_written(client):
    """Only the synchronous client sends the events of an append one by one."""
    if not hasattr(client, "inner"):
        return
    # Repeat it: it is chance whether the server sees the cancelled call or its own timeout first.
    for _ in range(5):
        stream, over = name(), threading.Event()

        def new():
            yield event()
            over.wait(PATIENCE)
            yield event()

        try:
            with raises(GrpcDeadlineExceededError):
                await asyncio.to_thread(
                    client.inner.streams.append, stream, NO_STREAM, new(), timeout=0.2
                )
        finally:
            over.set()
        with raises(NotFoundError):
            await client.get_stream(stream)
        await append(client, stream, NO_STREAM, event())


async def what_breaks_off_is_not_written(client):
    if not hasattr(client, "inner"):
        return
    streams = {}
    for _ in range(5):
        stream, begun, over = name(), threading.Event(), threading.Event()

        def new():
            yield event()
            begun.set()
            over.wait(PATIENCE)
            yield event()

        other = KurrentDBClient(f"esdb://{client.connection_target}?tls=false")
        breaking = asyncio.create_task(
            asyncio.to_thread(other.streams.append, stream, NO_STREAM, new())
        )
        check(await asyncio.to_thread(begun.wait, PATIENCE), "the append has not begun")
        # Closing the client cancels its running calls.
        await asyncio.to_thread(other.close)
        over.set()
        await asyncio.gather(breaking, return_exceptions=True)
        streams[stream] = event()
        await append(client, stream, NO_STREAM, streams[stream])
    for stream, whole in streams.items():
        equal(ids(await client.get_stream(stream)), [whole.id])


async def many_at_once(client):
    stream = name()
    new = [event() for _ in range(200)]
    positions = await asyncio.gather(*[append(client, stream, ANY, it) for it in new[:100]])
    positions += await asyncio.gather(*[append(client, stream, ANY, [it]) for it in new[100:]])
    found = await client.get_stream(stream)
    equal([it.stream_position for it in found], list(range(200)))
    equal(sorted(ids(found)), sorted(ids(new)))
    equal(sorted(positions), [it.commit_position for it in found])


async def one_wins_a_race(client):
    stream = name()

    async def one(new):
        try:
            return await append(client, stream, NO_STREAM, new)
        except WrongCurrentVersionError as error:
            equal((error.actual_version, error.expected_version), (0, NO_STREAM))

    positions = await asyncio.gather(
        *[one([it] if index % 2 else it) for index, it in enumerate(events(30))]
    )
    won = [position for position in positions if position is not None]
    equal([it.commit_position for it in await client.get_stream(stream)], won)


CASES = [
    any_always_holds,
    no_stream_holds_once,
    stream_exists_needs_one,
    exact_has_to_be_the_last,
    a_batch_is_whole_and_in_order,
    retries_write_nothing,
    an_id_is_no_key,
    what_is_written_is_what_is_read,
    names_of_every_language,
    an_event_of_almost_a_mebibyte,
    more_than_a_mebibyte_is_refused,
    more_than_a_mebibyte_alone_is_refused,
    what_is_not_complete_in_time_is_not_written,
    what_breaks_off_is_not_written,
    many_at_once,
    one_wins_a_race,
]
