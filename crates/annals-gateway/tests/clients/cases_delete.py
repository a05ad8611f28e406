"""Deleted and tombstoned streams."""

from kurrentdbclient.exceptions import (
    FailedPreconditionError,
    NotFoundError,
    StreamIsDeletedError,
    WrongCurrentVersionError,
)

from common import ANY, EXISTS, NO_STREAM, equal, event, events, ids, name, raises

# The value of `$tb` that hides every event of a deleted stream.
ALL_OF_IT = 2**63 - 1


async def filled(client, count=2):
    stream = name()
    await client.append_to_stream(stream, current_version=NO_STREAM, events=events(count))
    return stream


async def is_gone(client, stream):
    for options in ({}, {"backwards": True}, {"stream_position": 1}):
        with raises(NotFoundError):
            await client.get_stream(stream, **options)
    equal(await client.get_current_version(stream), NO_STREAM)


async def with_the_version(client):
    stream = await filled(client)
    with raises(WrongCurrentVersionError, stream_name=stream, actual_version=1, expected_version=0):
        await client.delete_stream(stream, current_version=0)
    await client.delete_stream(stream, current_version=1)
    await is_gone(client, stream)
    with raises(WrongCurrentVersionError, stream_name=stream, actual_version=1, expected_version=0):
        await client.delete_stream(stream, current_version=0)
    # Deleting the stream again is no error.
    await client.delete_stream(stream, current_version=1)
    await is_gone(client, stream)


async def numbers_go_on(client):
    stream = await filled(client)
    await client.delete_stream(stream, current_version=1)
    three, four = events(2)
    with raises(WrongCurrentVersionError, actual_version=1, expected_version=0):
        await client.append_to_stream(stream, current_version=0, events=[three])
    await client.append_to_stream(stream, current_version=NO_STREAM, events=three)
    equal(await client.get_current_version(stream), 2)
    await client.append_to_stream(stream, current_version=2, events=four)
    found = await client.get_stream(stream)
    equal([(it.id, it.stream_position) for it in found], [(three.id, 2), (four.id, 3)])
    with raises(WrongCurrentVersionError, actual_version=3, expected_version=0):
        await client.delete_stream(stream, current_version=0)
    await client.delete_stream(stream, current_version=3)
    await is_gone(client, stream)


async def whatever_the_version(client):
    missing = name()
    for expected in (0, EXISTS, NO_STREAM, ANY):
        with raises(NotFoundError):
            await client.delete_stream(missing, current_version=expected)
    stream = await filled(client)
    await client.delete_stream(stream, current_version=ANY)
    await client.delete_stream(stream, current_version=ANY)
    await is_gone(client, stream)
    with raises(WrongCurrentVersionError, actual_version=1, expected_version=0):
        await client.append_to_stream(stream, current_version=0, events=events(1))
    three = event()
    await client.append_to_stream(stream, current_version=1, events=[three])
    equal(ids(await client.get_stream(stream)), [three.id])
    await client.delete_stream(stream, current_version=ANY)
    await is_gone(client, stream)


async def where_it_exists(client):
    stream = await filled(client)
    await client.delete_stream(stream, current_version=EXISTS)
    with raises(StreamIsDeletedError):
        await client.delete_stream(stream, current_version=EXISTS)
    await is_gone(client, stream)
    three = event()
    await client.append_to_stream(stream, current_version=NO_STREAM, events=[three])
    equal(ids(await client.get_stream(stream)), [three.id])
    await client.delete_stream(stream, current_version=EXISTS)
    with raises(StreamIsDeletedError):
        await client.delete_stream(stream, current_version=EXISTS)


async def metadata_says_so(client):
    stream = await filled(client)
    await client.set_stream_metadata(stream, metadata={"owner": "me"})
    await client.delete_stream(stream, current_version=1)
    metadata, version = await client.get_stream_metadata(stream)
    equal(metadata, {"$tb": ALL_OF_IT})
    metadata["more"] = 1
    await client.set_stream_metadata(stream, metadata=metadata, current_version=version)
    equal((await client.get_stream_metadata(stream))[0]["more"], 1)


async def a_tombstone_is_for_ever(client):
    stream = await filled(client)
    with raises(WrongCurrentVersionError, stream_name=stream, actual_version=1, expected_version=0):
        await client.tombstone_stream(stream, current_version=0)
    await client.tombstone_stream(stream, current_version=1)
    for expected in (1, 2, ANY, EXISTS, NO_STREAM):
        with raises(StreamIsDeletedError):
            await client.tombstone_stream(stream, current_version=expected)
        with raises(StreamIsDeletedError):
            await client.append_to_stream(stream, current_version=expected, events=events(1))
    for options in ({}, {"backwards": True}, {"limit": 1}, {"stream_position": 5}):
        with raises(StreamIsDeletedError):
            await client.get_stream(stream, **options)
    with raises(StreamIsDeletedError):
        await client.get_current_version(stream)
    with raises(StreamIsDeletedError):
        await client.delete_stream(stream, current_version=ANY)


async def an_event_alone_after_a_tombstone(client):
    """For Append, the synchronous client has no class for this error."""
    stream = await filled(client)
    await client.tombstone_stream(stream, current_version=ANY)
    kind = FailedPreconditionError if hasattr(client, "inner") else StreamIsDeletedError
    with raises(kind):
        await client.append_to_stream(stream, current_version=1, events=event())


async def a_tombstone_where_nothing_was(client):
    stream = name()
    with raises(NotFoundError):
        await client.tombstone_stream(stream, current_version=EXISTS)
    await client.tombstone_stream(stream, current_version=ANY)
    with raises(StreamIsDeletedError):
        await client.append_to_stream(stream, current_version=NO_STREAM, events=events(1))
    with raises(StreamIsDeletedError):
        await client.get_stream(stream)


async def metadata_after_a_tombstone(client):
    stream = await filled(client)
    await client.set_stream_metadata(stream, metadata={"owner": "me"})
    await client.tombstone_stream(stream, current_version=ANY)
    with raises(StreamIsDeletedError):
        await client.get_stream_metadata(stream)
    metadata = {"owner": "you"}
    kind = FailedPreconditionError if hasattr(client, "inner") else StreamIsDeletedError
    with raises(kind):
        await client.set_stream_metadata(stream, metadata=metadata, current_version=ANY)


CASES = [
    with_the_version,
    numbers_go_on,
    whatever_the_version,
    where_it_exists,
    metadata_says_so,
    a_tombstone_is_for_ever,
    an_event_alone_after_a_tombstone,
    a_tombstone_where_nothing_was,
    metadata_after_a_tombstone,
]
