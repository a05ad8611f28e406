// Appends, deletes and tombstones. The client sends an append by BatchAppend, or by Append if the
// append has its own credentials.

import { randomBytes } from "node:crypto";

import { check, collect, equal, event, events, ids, kurrent, name, throws } from "./common.mjs";

const {
  ANY,
  BACKWARDS,
  KurrentDBClient,
  MaxAppendSizeExceededError,
  NO_STREAM,
  STREAM_EXISTS,
  StreamDeletedError,
  StreamNotFoundError,
  WrongExpectedVersionError,
  binaryEvent,
  jsonEvent,
} = kurrent;

const MIB = 1024 * 1024;
const CREDENTIALS = { username: "admin", password: "changeit" };
const WAYS = [{}, { credentials: CREDENTIALS }];

const read = (client, stream, options) => collect(client.readStream(stream, options));

async function any_always_holds(client) {
  for (const way of WAYS) {
    const [stream, new_] = [name(), events(2)];
    const one = await client.appendToStream(stream, new_[0], { streamState: ANY, ...way });
    const two = await client.appendToStream(stream, new_[1], way);
    equal([one.success, one.nextExpectedRevision], [true, 0n]);
    equal([two.success, two.nextExpectedRevision], [true, 1n]);
    check(two.position.commit > one.position.commit, "the positions do not rise");
    equal(ids(await read(client, stream)), ids(new_));
  }
}

async function no_stream_holds_once(client) {
  for (const way of WAYS) {
    const [stream, options] = [name(), { streamState: NO_STREAM, ...way }];
    await client.appendToStream(stream, event(), options);
    const fields = { streamName: stream, expectedState: NO_STREAM, actualState: 0n };
    await throws(WrongExpectedVersionError, fields, () =>
      client.appendToStream(stream, event(), options),
    );
    equal((await read(client, stream)).length, 1);
  }
}

async function stream_exists_needs_one(client) {
  for (const way of WAYS) {
    const [stream, options] = [name(), { streamState: STREAM_EXISTS, ...way }];
    const fields = { streamName: stream, expectedState: STREAM_EXISTS, actualState: NO_STREAM };
    await throws(WrongExpectedVersionError, fields, () =>
      client.appendToStream(stream, event(), options),
    );
    await client.appendToStream(stream, event());
    equal((await client.appendToStream(stream, event(), options)).nextExpectedRevision, 1n);
  }
}

async function exact_has_to_be_the_last(client) {
  for (const way of WAYS) {
    const stream = name();
    const wrong = (expected, actual) => {
      const fields = { streamName: stream, expectedState: expected, actualState: actual };
      const call = () => client.appendToStream(stream, event(), { streamState: expected, ...way });
      return throws(WrongExpectedVersionError, fields, call);
    };
    await wrong(1n, NO_STREAM);
    await client.appendToStream(stream, events(2), { streamState: NO_STREAM, ...way });
    await wrong(0n, 1n);
    await wrong(7n, 1n);
    await client.appendToStream(stream, event(), { streamState: 1n, ...way });
    equal((await read(client, stream)).length, 3);
  }
}

async function a_batch_is_whole_and_in_order(client) {
  for (const way of WAYS) {
    const [stream, new_] = [name(), events(100)];
    // The client sends these events in many messages.
    const options = { streamState: NO_STREAM, batchAppendSize: 500, ...way };
    const result = await client.appendToStream(stream, new_, options);
    equal(result.nextExpectedRevision, 99n);
    const found = await read(client, stream);
    equal(ids(found), ids(new_));
    equal(
      found.map((it) => it.event.revision),
      Array.from({ length: 100 }, (_, index) => BigInt(index)),
    );
    equal(found.at(-1).event.position.commit, result.position.commit);
  }
}

async function retries_write_nothing(client) {
  for (const way of WAYS) {
    const [stream, new_] = [name(), events(4)];
    const append = (streamState, from, to) =>
      client.appendToStream(stream, new_.slice(from, to), { streamState, ...way });
    const first = await append(NO_STREAM, 0, 1);
    const rest = await append(0n, 1, 3);
    equal(await append(NO_STREAM, 0, 1), first);
    equal(await append(0n, 1, 3), rest);
    equal(await append(NO_STREAM, 0, 3), rest);
    await throws(WrongExpectedVersionError, { actualState: 2n }, () => append(0n, 1, 4));
    await throws(WrongExpectedVersionError, { actualState: 2n }, () => append(NO_STREAM, 1, 2));
    equal(ids(await read(client, stream)), ids(new_.slice(0, 3)));
  }
}

async function what_is_written_is_what_is_read(client) {
  for (const way of WAYS) {
    const everyByte = Uint8Array.from({ length: 256 }, (_, index) => index);
    const data = { text: "ä 注 🎉 \u0000", number: 1.5, list: [null, true], nested: { a: "" } };
    const stream = name();
    const new_ = [
      jsonEvent({ type: "Json", data, metadata: { $correlationId: "c", x: [1] } }),
      jsonEvent({ type: "Binary metadata", data, metadata: everyByte }),
      binaryEvent({ type: "Binary", data: everyByte, metadata: { a: 1 } }),
      binaryEvent({ type: "Заказ 注文 🎉", data: everyByte }),
      jsonEvent({ type: "No object", data: "text" }),
    ];
    const before = Date.now();
    await client.appendToStream(stream, new_, way);
    const found = await read(client, stream);
    found.forEach(({ event: one, link }, index) => {
      const sent = new_[index];
      equal([one.id, one.type, one.streamId, link], [sent.id, sent.type, stream, undefined]);
      equal(one.isJson, sent.contentType === "application/json");
      equal(one.isJson ? one.data : Uint8Array.from(one.data), sent.data);
      const binary = sent.metadata instanceof Uint8Array;
      equal(binary ? Uint8Array.from(one.metadata) : one.metadata, sent.metadata);
      check(Math.abs(one.created - before) < 60_000, `created ${one.created}`);
      equal(one.position.commit, one.position.prepare);
    });
    equal(found.length, new_.length);
  }
}

async function names_of_every_language(client) {
  for (const prefix of ["заказ", "注文-🎉", "%_'\"\\/?#@ ", "order with  spaces", "a:b::c"]) {
    const stream = name(prefix);
    await client.appendToStream(stream, events(2), { streamState: NO_STREAM });
    const fields = { streamName: stream, actualState: 1n };
    const again = () => client.appendToStream(stream, event(), { streamState: NO_STREAM });
    await throws(WrongExpectedVersionError, fields, again);
    equal(
      (await read(client, stream)).map((it) => it.event.streamId),
      [stream, stream],
    );
    await client.setStreamMetadata(stream, { of: stream });
    equal((await client.getStreamMetadata(stream)).metadata, { of: stream });
    await client.deleteStream(stream, { expectedRevision: 1n });
    await throws(StreamNotFoundError, { streamName: stream }, () => read(client, stream));
  }
}

async function a_mebibyte_and_more(client) {
  const [stream, data] = [name(), Uint8Array.from(randomBytes(MIB - 4096))];
  for (const way of WAYS) {
    await client.appendToStream(stream, binaryEvent({ type: "Large", data }), way);
  }
  for (const { event: one } of await read(client, stream)) {
    check(Buffer.from(one.data).equals(Buffer.from(data)), "the data is another");
  }
  for (const way of WAYS) {
    for (const size of [MIB + 1, 2 * MIB, 4 * MIB]) {
      const large = binaryEvent({ type: "Large", data: new Uint8Array(size) });
      const call = () => client.appendToStream(stream, large, way);
      await throws(MaxAppendSizeExceededError, { maxAppendSize: MIB }, call);
    }
    // The client sends these events in many messages, each within the limit.
    const many = events(40, { data: { text: "x".repeat(MIB / 32) } });
    const call = () => client.appendToStream(stream, many, way);
    await throws(MaxAppendSizeExceededError, { maxAppendSize: MIB }, call);
    await client.appendToStream(stream, event(), way);
  }
  equal((await read(client, stream)).length, 4);
}

async function many_at_once(client) {
  const [stream, new_] = [name(), events(300)];
  const append = (it, index) => client.appendToStream(stream, it, WAYS[index % 2]);
  const results = await Promise.all(new_.map(append));
  const revisions = results.map((it) => Number(it.nextExpectedRevision)).sort((a, b) => a - b);
  equal(
    revisions,
    Array.from({ length: 300 }, (_, index) => index),
  );
  equal(ids(await read(client, stream)).sort(), ids(new_).sort());
}

async function one_wins_a_race(client) {
  const stream = name();
  const results = await Promise.allSettled(
    events(30).map((it, index) =>
      client.appendToStream(stream, it, { streamState: NO_STREAM, ...WAYS[index % 2] }),
    ),
  );
  const lost = results.filter((it) => it.status === "rejected");
  equal(lost.length, 29);
  for (const { reason } of lost) {
    await throws(WrongExpectedVersionError, { actualState: 0n, streamName: stream }, () => {
      throw reason;
    });
  }
  equal((await read(client, stream)).length, 1);
}

async function a_deleted_stream(client) {
  const [stream, new_] = [name(), events(3)];
  await client.appendToStream(stream, new_.slice(0, 2));
  const wrong = { streamName: stream, expectedState: 0n, actualState: 1n };
  const remove = (expectedRevision) => () => client.deleteStream(stream, { expectedRevision });
  await throws(WrongExpectedVersionError, wrong, remove(0n));
  const { position } = await remove(1n)();
  check(position.commit > 0n, "the answer has no position");
  await throws(StreamNotFoundError, { streamName: stream }, () => read(client, stream));
  await throws(StreamNotFoundError, {}, () => read(client, stream, { direction: BACKWARDS }));
  await throws(WrongExpectedVersionError, wrong, remove(0n));
  await remove(1n)();
  equal((await client.getStreamMetadata(stream)).metadata, {
    truncateBefore: Number(2n ** 63n - 1n),
  });
  const result = await client.appendToStream(stream, new_[2], { streamState: NO_STREAM });
  equal(result.nextExpectedRevision, 2n);
  const found = await read(client, stream);
  equal(
    found.map((it) => [it.event.id, it.event.revision]),
    [[new_[2].id, 2n]],
  );
  const missing = name();
  const fields = { streamName: missing, actualState: -1n };
  await throws(WrongExpectedVersionError, fields, () => client.deleteStream(missing));
  const exact = () => client.deleteStream(missing, { expectedRevision: 3n });
  await throws(WrongExpectedVersionError, { ...fields, expectedState: 3n }, exact);
}

async function a_tombstoned_stream(client) {
  const stream = name();
  await client.appendToStream(stream, events(2));
  const tombstone = (expectedRevision) => () =>
    client.tombstoneStream(stream, { expectedRevision });
  const wrong = { streamName: stream, expectedState: 0n, actualState: 1n };
  await throws(WrongExpectedVersionError, wrong, tombstone(0n));
  check((await tombstone(1n)()).position.commit > 0n, "the answer has no position");
  const closed = [
    () => read(client, stream),
    () => read(client, stream, { direction: BACKWARDS, maxCount: 1 }),
    () => client.appendToStream(stream, event()),
    () => client.appendToStream(stream, event(), WAYS[1]),
    () => client.appendToStream(stream, event(), { streamState: 1n }),
    () => client.deleteStream(stream),
    tombstone(1n),
    tombstone(ANY),
  ];
  for (const call of closed) await throws(StreamDeletedError, { streamName: stream }, call);
  await throws(StreamDeletedError, {}, () => client.getStreamMetadata(stream));
}

async function a_conflict_as_an_answer(client, url) {
  const other = KurrentDBClient.connectionString(`${url}&throwOnAppendFailure=false`);
  for (const way of WAYS) {
    const [stream, options] = [name(), { streamState: NO_STREAM, ...way }];
    equal((await other.appendToStream(stream, event(), options)).success, true);
    equal((await other.appendToStream(stream, event(), options)).success, false);
  }
  await other.dispose();
}

export default [
  any_always_holds,
  no_stream_holds_once,
  stream_exists_needs_one,
  exact_has_to_be_the_last,
  a_batch_is_whole_and_in_order,
  retries_write_nothing,
  what_is_written_is_what_is_read,
  names_of_every_language,
  a_mebibyte_and_more,
  many_at_once,
  one_wins_a_race,
  a_conflict_as_an_answer,
  a_deleted_stream,
  a_tombstoned_stream,
];
