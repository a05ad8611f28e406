// Reads of streams, of `$all` with its filters, of categories, and of metadata.

import { check, collect, equal, event, events, ids, kurrent, name, throws } from "./common.mjs";

const {
  BACKWARDS,
  END,
  FORWARDS,
  NO_STREAM,
  START,
  StreamNotFoundError,
  WrongExpectedVersionError,
  eventTypeFilter,
  excludeSystemEvents,
  jsonEvent,
  binaryEvent,
  streamNameFilter,
} = kurrent;

async function a_stream_in_both_directions(client) {
  const [stream, new_] = [name(), events(10)];
  await client.appendToStream(stream, new_);
  const order = ids(new_);
  const read = async (options) => ids(await collect(client.readStream(stream, options)));
  const down = [...order].reverse();
  equal(await read({}), order);
  equal(await read({ fromRevision: START, direction: FORWARDS }), order);
  equal(await read({ fromRevision: END, direction: BACKWARDS }), down);
  equal(await read({ fromRevision: 3n }), order.slice(3));
  equal(await read({ fromRevision: 3n, direction: BACKWARDS }), down.slice(6));
  equal(await read({ maxCount: 4 }), order.slice(0, 4));
  equal(await read({ maxCount: 4, fromRevision: END, direction: BACKWARDS }), down.slice(0, 4));
  equal(await read({ maxCount: 2, fromRevision: 3n, direction: BACKWARDS }), down.slice(6, 8));
  equal(await read({ fromRevision: 3n, maxCount: 4 }), order.slice(3, 7));
  equal(await read({ fromRevision: 10n }), []);
  equal(await read({ fromRevision: 0n, direction: BACKWARDS }), order.slice(0, 1));
}

async function a_missing_stream_is_not_found(client) {
  const stream = name();
  const all = [
    {},
    { direction: BACKWARDS, fromRevision: END },
    { fromRevision: 5n },
    { maxCount: 1 },
  ];
  for (const options of all) {
    const call = () => collect(client.readStream(stream, options));
    await throws(StreamNotFoundError, { streamName: stream }, call);
  }
}

async function a_long_stream(client) {
  const [stream, new_] = [name(), events(3000)];
  await client.appendToStream(stream, new_);
  equal(ids(await collect(client.readStream(stream))), ids(new_));
}

/** Appends to two streams by turns; gives the events, and the position of each. */
async function by_turns(client, count) {
  const [streams, new_, positions] = [[name(), name()], events(count), []];
  for (const [index, it] of new_.entries()) {
    positions.push((await client.appendToStream(streams[index % 2], it)).position);
  }
  return { new_, positions };
}

async function all_in_both_directions_from_a_position(client) {
  const { new_, positions } = await by_turns(client, 6);
  const order = ids(new_);
  const filter = excludeSystemEvents();
  const read = async (options) => ids(await collect(client.readAll({ filter, ...options })));
  const down = [...order].reverse();
  // A forwards read includes the event at the position; a backwards read does not.
  equal(await read({ fromPosition: positions[0] }), order);
  equal(await read({ fromPosition: positions[2], maxCount: 3 }), order.slice(2, 5));
  equal(
    await read({ fromPosition: positions[4], direction: BACKWARDS, maxCount: 4 }),
    down.slice(2),
  );
  equal(await read({ fromPosition: END, direction: BACKWARDS, maxCount: 2 }), down.slice(0, 2));
  const everything = await read({ fromPosition: START });
  equal(everything.slice(-6), order);
  equal(await read({ fromPosition: END, direction: BACKWARDS }), everything.reverse());
}

async function all_has_what_the_system_writes(client) {
  const stream = name();
  const { position } = await client.appendToStream(stream, event({ type: "Placed" }));
  await client.setStreamMetadata(stream, { owner: "me" });
  await client.appendToStream(stream, event({ type: "Paid" }));
  const found = await collect(client.readAll({ fromPosition: position }));
  equal(
    found.map((it) => it.event.type),
    ["Placed", "$metadata", "Paid"],
  );
  equal([found[1].event.streamId, found[1].event.data], [`$$${stream}`, { owner: "me" }]);
}

async function filters(client) {
  const tag = name("f");
  const new_ = ["Placed", "Paid", "Sent"].map((type) => event({ type: `${tag}${type}` }));
  const streams = [`${tag}-order-1`, `${tag}-order-2`, `${tag}-cart-1`];
  const positions = [];
  for (const [index, it] of new_.entries()) {
    positions.push((await client.appendToStream(streams[index], it)).position);
  }
  const read = async (filter, options) =>
    ids(await collect(client.readAll({ fromPosition: positions[0], filter, ...options })));
  const [placed, paid, sent] = ids(new_);
  equal(await read(eventTypeFilter({ prefixes: [`${tag}P`] })), [placed, paid]);
  equal(await read(eventTypeFilter({ prefixes: [`${tag}Pl`, `${tag}S`] })), [placed, sent]);
  equal(await read(eventTypeFilter({ regex: `^${tag}P.*d$` })), [placed, paid]);
  equal(await read(eventTypeFilter({ regex: `^(?!${tag}P).*` })), [sent]);
  equal(await read(streamNameFilter({ prefixes: [`${tag}-order-`] })), [placed, paid]);
  equal(await read(streamNameFilter({ prefixes: [`${tag}-c`, `${tag}-order-2`] })), [paid, sent]);
  equal(await read(streamNameFilter({ regex: `^${tag}-.*-1$` })), [placed, sent]);
  equal(await read(streamNameFilter({ regex: `^(?!${tag}-order)` })), [sent]);
  equal(await read(streamNameFilter({ prefixes: [`${tag}-o`] }), { maxCount: 1 }), [placed]);
  const backwards = { fromPosition: END, direction: BACKWARDS };
  equal(await read(streamNameFilter({ prefixes: [`${tag}-o`] }), backwards), [paid, placed]);
  equal(await read(streamNameFilter({ prefixes: [`${tag}-nothing`] })), []);
}

async function a_category_is_links(client) {
  const category = name("cat").replace("-", "");
  const [ce, new_] = [`$ce-${category}`, events(4)];
  for (const [index, it] of new_.entries()) {
    await client.appendToStream(`${category}-${index % 2}`, it);
  }
  await client.appendToStream(`${category}x-1`, event());
  const found = await collect(client.readStream(ce, { resolveLinkTos: true }));
  equal(ids(found), ids(new_));
  equal(
    found.map((it) => it.event.streamId),
    [0, 1, 0, 1].map((index) => `${category}-${index}`),
  );
  equal(
    found.map((it) => [it.link.type, it.link.streamId]),
    Array(4).fill(["$>", ce]),
  );
  check(found[3].link.revision > found[0].link.revision, "the revisions do not rise");
  const options = { resolveLinkTos: true, direction: BACKWARDS, fromRevision: END, maxCount: 2 };
  equal(ids(await collect(client.readStream(ce, options))), [new_[3].id, new_[2].id]);
  const links = await collect(client.readStream(ce));
  const data = links.map((it) => Buffer.from(it.event.data).toString());
  equal(
    data,
    [0, 1, 2, 3].map((index) => `${index >> 1}@${category}-${index % 2}`),
  );
}

async function links_that_applications_write(client) {
  const [stream, links, new_] = [name(), name("links"), events(2)];
  await client.appendToStream(stream, new_);
  const link = (target) => binaryEvent({ type: "$>", data: Buffer.from(target) });
  await client.appendToStream(links, [
    link(`1@${stream}`),
    link(`0@${stream}`),
    link(`7@${stream}`),
  ]);
  const found = await collect(client.readStream(links, { resolveLinkTos: true }));
  equal(
    found.map((it) => it.event?.id),
    [new_[1].id, new_[0].id, undefined],
  );
  equal(
    found.map((it) => [it.link.streamId, it.link.revision]),
    [0n, 1n, 2n].map((at) => [links, at]),
  );
}

async function metadata_of_a_stream(client) {
  const stream = name();
  equal(await client.getStreamMetadata(stream), { streamName: stream });
  const first = await client.setStreamMetadata(stream, { own: "ä" }, { streamState: NO_STREAM });
  equal(first.nextExpectedRevision, 0n);
  const acl = { readRoles: ["$all"], writeRoles: ["$admins", "me"] };
  await client.setStreamMetadata(stream, { acl, maxAge: 3600, own: [1] }, { streamState: 0n });
  const { metadata, streamName } = await client.getStreamMetadata(stream);
  equal([metadata, streamName], [{ acl, maxAge: 3600, own: [1] }, stream]);
  const call = () => client.setStreamMetadata(stream, {}, { streamState: 7n });
  const fields = { streamName: `$$${stream}`, expectedState: 7n, actualState: 1n };
  await throws(WrongExpectedVersionError, fields, call);
}

async function metadata_hides(client) {
  const [stream, new_] = [
    name(),
    Array.from({ length: 5 }, () => jsonEvent({ type: "T", data: {} })),
  ];
  await client.appendToStream(stream, new_);
  const revisions = async (options) =>
    (await collect(client.readStream(stream, options))).map((it) => it.event.revision);
  await client.setStreamMetadata(stream, { maxCount: 2 });
  equal(await revisions(), [3n, 4n]);
  equal(await revisions({ direction: BACKWARDS, fromRevision: END }), [4n, 3n]);
  await client.appendToStream(stream, event(), { streamState: 4n });
  equal(await revisions(), [4n, 5n]);
  await client.setStreamMetadata(stream, { truncateBefore: 5 });
  equal(await revisions(), [5n]);
}

export default [
  a_stream_in_both_directions,
  a_missing_stream_is_not_found,
  a_long_stream,
  all_in_both_directions_from_a_position,
  all_has_what_the_system_writes,
  filters,
  a_category_is_links,
  links_that_applications_write,
  metadata_of_a_stream,
  metadata_hides,
];
