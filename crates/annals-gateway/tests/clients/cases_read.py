"""Reads of streams, of `$all` with its filters, and of categories."""

from kurrentdbclient.exceptions import NotFoundError, WrongCurrentVersionError

from common import ANY, NO_STREAM, check, equal, event, events, ids, name, raises


async def collect(reading):
    return [item async for item in await reading]


async def a_stream_in_both_directions(client):
    stream, new = name(), events(10)
    await client.append_to_stream(stream, current_version=NO_STREAM, events=new)
    order = ids(new)

    async def read(**options):
        found = ids(await client.get_stream(stream, **options))
        equal(ids(await collect(client.read_stream(stream, **options))), found)
        return found

    equal(await read(), order)
    equal(await read(backwards=True), order[::-1])
    equal(await read(stream_position=3), order[3:])
    equal(await read(stream_position=3, backwards=True), order[3::-1])
    equal(await read(limit=4), order[:4])
    equal(await read(limit=4, backwards=True), order[:5:-1])
    equal(await read(stream_position=3, limit=4), order[3:7])
    equal(await read(stream_position=3, limit=2, backwards=True), order[3:1:-1])
    equal(await read(stream_position=9), order[9:])
    equal(await read(stream_position=0, backwards=True), order[:1])
    equal(await read(stream_position=10), [])
    equal(await read(stream_position=1000), [])
    equal(await read(stream_position=1000, backwards=True), order[::-1])


async def a_missing_stream_is_not_found(client):
    stream = name()
    for options in [
        {},
        {"backwards": True},
        {"stream_position": 1},
        {"stream_position": 1, "backwards": True},
        {"limit": 10},
        {"limit": 10, "backwards": True},
    ]:
        with raises(NotFoundError) as raised:
            await client.get_stream(stream, **options)
        equal(str(raised.error), f"Stream {stream!r} not found")
        with raises(NotFoundError):
            await collect(client.read_stream(stream, **options))
    equal(await client.get_current_version(stream), NO_STREAM)


async def a_long_stream(client):
    stream, new = name(), events(3000)
    for start in range(0, 3000, 500):
        await client.append_to_stream(stream, current_version=ANY, events=new[start : start + 500])
    equal(ids(await client.get_stream(stream)), ids(new))
    equal(ids(await client.get_stream(stream, backwards=True)), ids(new)[::-1])


async def all_in_both_directions_from_a_position(client):
    stream, other = name(), name()
    before = await client.append_to_stream(other, current_version=NO_STREAM, events=event())
    new = events(6)
    positions = [
        await client.append_to_stream(
            stream if index % 2 else other, current_version=ANY, events=it
        )
        for index, it in enumerate(new)
    ]
    order = ids(new)
    # A forwards read includes the event at the position; a backwards read does not.
    equal(ids(await collect(client.read_all(commit_position=positions[0]))), order)
    equal(ids(await collect(client.read_all(commit_position=positions[2], limit=3))), order[2:5])
    equal(
        ids(await collect(client.read_all(commit_position=positions[4], backwards=True, limit=4))),
        order[3::-1],
    )
    equal(ids(await collect(client.read_all(backwards=True, limit=2))), order[:3:-1])
    everything = ids(await collect(client.read_all()))
    equal(everything[-6:], order)
    equal(ids(await collect(client.read_all(backwards=True))), everything[::-1])
    found = await collect(client.read_all(commit_position=before, limit=3))
    equal([it.commit_position for it in found], [before, *positions[:2]])
    equal(await client.get_commit_position(), positions[-1])


async def all_has_what_the_system_writes(client):
    stream = name()
    start = await client.append_to_stream(stream, current_version=NO_STREAM, events=event("Placed"))
    await client.set_stream_metadata(stream, metadata={"owner": "me"})
    await client.append_to_stream(stream, current_version=0, events=event("Paid"))
    found = await collect(client.read_all(commit_position=start, filter_exclude=[]))
    equal([it.type for it in found], ["Placed", "$metadata", "Paid"])
    equal((found[1].stream_name, found[1].data), (f"$${stream}", b'{"owner": "me"}'))
    # The client leaves these events out by default.
    found = await collect(client.read_all(commit_position=start))
    equal([it.type for it in found], ["Placed", "Paid"])


async def filters_by_type(client):
    tag = name("Type").replace("-", "")
    types = [f"{tag}{end}" for end in ("Placed", "Paid", "Sent", "Placed")]
    new = [event(type) for type in types]
    start = await client.append_to_stream(name(), current_version=ANY, events=new[0])
    await client.append_to_stream(name(), current_version=ANY, events=new[1:])

    async def read(**options):
        return ids(await collect(client.read_all(commit_position=start, **options)))

    placed, paid, sent, again = ids(new)
    equal(await read(filter_include=types[0]), [placed, again])
    equal(await read(filter_include=[types[1], types[2]]), [paid, sent])
    equal(await read(filter_include=[f"{tag}P.*"]), [placed, paid, again])
    equal(await read(filter_include=[f"{tag}P.*"], limit=2), [placed, paid])
    equal(await read(filter_include=[f"{tag}P"]), [])
    equal(await read(filter_include=[f"{tag}P"], filter_by_prefix=True), [placed, paid, again])
    equal(
        await read(filter_include=[f"{tag}Pl", f"{tag}S"], filter_by_prefix=True),
        [placed, sent, again],
    )
    equal(await read(filter_exclude=[types[0]]), [paid, sent])
    equal(await read(filter_exclude=[f"{tag}P.*"]), [sent])
    equal(await read(filter_exclude=[".*"]), [])
    equal(
        ids(await collect(client.read_all(filter_include=[types[0]], backwards=True))),
        [again, placed],
    )
    equal(
        ids(await collect(client.read_all(filter_include=[types[0]], backwards=True, limit=1))),
        [again],
    )


async def filters_by_stream(client):
    tag = name("s")
    streams = [f"{tag}-order-1", f"{tag}-order-2", f"{tag}-cart-1", f"{tag}_order%"]
    new = events(4)
    start = await client.append_to_stream(streams[0], current_version=ANY, events=new[0])
    for stream, it in zip(streams[1:], new[1:]):
        await client.append_to_stream(stream, current_version=ANY, events=it)

    async def read(**options):
        reading = client.read_all(commit_position=start, filter_by_stream_name=True, **options)
        return ids(await collect(reading))

    one, two, cart, odd = ids(new)
    equal(await read(filter_include=[streams[0]]), [one])
    equal(await read(filter_include=[rf"{tag}-order-\d"]), [one, two])
    equal(await read(filter_include=[f"{tag}-order-"], filter_by_prefix=True), [one, two])
    equal(
        await read(filter_include=[f"{tag}-order-", f"{tag}_"], filter_by_prefix=True),
        [one, two, odd],
    )
    equal(await read(filter_include=[f"{tag}_order%"], filter_by_prefix=True), [odd])
    equal(await read(filter_include=[f"{tag.upper()}-order-"], filter_by_prefix=True), [])
    equal(await read(filter_exclude=[rf"{tag}-order-\d", r"\$.*"]), [cart, odd])
    equal(await read(filter_exclude=[f"{tag}.*"]), [])


async def a_category_is_links(client):
    category = name("cat").replace("-", "")
    streams = [f"{category}-1", f"{category}-2"]
    new = events(4)
    for index, it in enumerate(new):
        await client.append_to_stream(streams[index % 2], current_version=ANY, events=it)
    await client.append_to_stream(f"{category}x-1", current_version=ANY, events=event())
    ce = f"$ce-{category}"
    found = await client.get_stream(ce, resolve_links=True)
    equal(ids(found), ids(new))
    equal(
        [(it.stream_name, it.stream_position) for it in found],
        [(streams[i % 2], i // 2) for i in range(4)],
    )
    for it in found:
        equal((it.link.type, it.link.stream_name), ("$>", ce))
        equal(it.link.data.decode(), f"{it.stream_position}@{it.stream_name}")
        check(it.link.id != it.id, "the link has the id of the event")
    revisions = [it.link.stream_position for it in found]
    check(revisions == sorted(set(revisions)), f"the revisions {revisions} do not rise")
    equal(ids(await client.get_stream(ce, resolve_links=True, backwards=True)), ids(new)[::-1])
    equal(ids(await client.get_stream(ce, resolve_links=True, limit=2)), ids(new)[:2])
    found = await client.get_stream(ce, resolve_links=True, stream_position=revisions[1])
    equal(ids(found), ids(new)[1:])
    found = await client.get_stream(
        ce, resolve_links=True, stream_position=revisions[1], backwards=True
    )
    equal(ids(found), ids(new)[1::-1])
    found = await client.get_stream(ce)
    equal([it.type for it in found], ["$>"] * 4)
    equal([it.data.decode() for it in found], [f"{i // 2}@{streams[i % 2]}" for i in range(4)])
    with raises(NotFoundError):
        await client.get_stream(f"$ce-{category}y", resolve_links=True)


async def links_that_applications_write(client):
    stream, links, new = name(), name("links"), events(2)
    await client.append_to_stream(stream, current_version=NO_STREAM, events=new)
    targets = [f"1@{stream}", f"0@{stream}", f"7@{stream}"]
    await client.append_to_stream(
        links,
        current_version=NO_STREAM,
        events=[event("$>", target.encode()) for target in targets],
    )
    found = await client.get_stream(links)
    equal([(it.type, it.data.decode()) for it in found], [("$>", target) for target in targets])
    # The client leaves out links whose event does not exist.
    found = await client.get_stream(links, resolve_links=True, limit=2)
    equal(ids(found), [new[1].id, new[0].id])
    equal(
        [(it.link.stream_name, it.link.stream_position) for it in found], [(links, 0), (links, 1)]
    )


async def metadata_of_a_stream(client):
    stream = name()
    equal(await client.get_stream_metadata(stream), ({}, NO_STREAM))
    await client.set_stream_metadata(stream, metadata={"a": "ä"}, current_version=NO_STREAM)
    equal(await client.get_stream_metadata(stream), ({"a": "ä"}, 0))
    acl = {"$acl": {"$r": "$all", "$w": ["$admins"]}, "b": [1, None]}
    await client.set_stream_metadata(stream, metadata=acl, current_version=0)
    equal(await client.get_stream_metadata(stream), (acl, 1))
    with raises(
        WrongCurrentVersionError, stream_name=f"$${stream}", actual_version=1, expected_version=10
    ):
        await client.set_stream_metadata(stream, metadata={}, current_version=10)
    # Setting metadata does not create the stream.
    with raises(NotFoundError):
        await client.get_stream(stream)
    await client.append_to_stream(stream, current_version=NO_STREAM, events=event())


async def max_count_hides(client):
    stream, new = name(), events(5)
    await client.append_to_stream(stream, current_version=NO_STREAM, events=new)
    await client.set_stream_metadata(stream, metadata={"$maxCount": 2})
    found = await client.get_stream(stream)
    equal(ids(found), ids(new)[3:])
    equal([it.stream_position for it in found], [3, 4])
    equal(ids(await client.get_stream(stream, backwards=True)), ids(new)[:2:-1])
    more = event()
    await client.append_to_stream(stream, current_version=4, events=more)
    equal(ids(await client.get_stream(stream)), [new[4].id, more.id])


async def truncate_before_hides(client):
    stream, new = name(), events(5)
    await client.append_to_stream(stream, current_version=NO_STREAM, events=new)
    await client.set_stream_metadata(stream, metadata={"$tb": 3})
    equal([it.stream_position for it in await client.get_stream(stream)], [3, 4])
    equal([it.stream_position for it in await client.get_stream(stream, backwards=True)], [4, 3])
    equal(await client.get_current_version(stream), 4)
    await client.append_to_stream(stream, current_version=4, events=event())
    await client.set_stream_metadata(stream, metadata={"$maxAge": 3600})
    found = await client.get_stream(stream)
    equal([it.stream_position for it in found][-3:], [3, 4, 5])


CASES = [
    a_stream_in_both_directions,
    a_missing_stream_is_not_found,
    a_long_stream,
    all_in_both_directions_from_a_position,
    all_has_what_the_system_writes,
    filters_by_type,
    filters_by_stream,
    a_category_is_links,
    links_that_applications_write,
    metadata_of_a_stream,
    max_count_hides,
    truncate_before_hides,
]
