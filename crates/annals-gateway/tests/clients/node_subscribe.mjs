// Catch-up subscriptions, to a stream, to `$all`, and to a category.

import {
  Taker,
  check,
  equal,
  event,
  events,
  ids,
  kurrent,
  name,
  throws,
  using,
} from "./common.mjs";

const { END, START, StreamDeletedError, eventTypeFilter, streamNameFilter } = kurrent;

async function a_stream_from_its_start(client) {
  const [stream, new_] = [name(), events(5)];
  await client.appendToStream(stream, new_.slice(0, 3));
  await using(client.subscribeToStream(stream), async (taker, subscription) => {
    equal((await taker.any()).kind, "confirmation");
    check(subscription.id, "the subscription has no id");
    equal(ids(await taker.take(3)), ids(new_.slice(0, 3)));
    const info = await taker.next("caughtUp");
    equal(info.revision, 2n);
    check(Math.abs(info.date - Date.now()) < 60_000, `caught up at ${info.date}`);
    await client.appendToStream(name(), event());
    await client.appendToStream(stream, new_.slice(3));
    equal(
      (await taker.take(2)).map((it) => [it.event.id, it.event.revision]),
      [
        [new_[3].id, 3n],
        [new_[4].id, 4n],
      ],
    );
  });
}

async function a_stream_from_a_revision_and_its_end(client) {
  const [stream, new_] = [name(), events(5)];
  await client.appendToStream(stream, new_.slice(0, 4));
  await using(client.subscribeToStream(stream, { fromRevision: 1n }), async (taker) => {
    // The subscription begins after the event at the revision.
    equal(ids(await taker.take(2)), ids(new_.slice(2, 4)));
  });
  await using(client.subscribeToStream(stream, { fromRevision: END }), async (taker) => {
    await taker.next("caughtUp");
    await client.appendToStream(stream, new_[4]);
    equal((await taker.next()).event.id, new_[4].id);
  });
}

async function a_stream_that_is_not_there_yet(client) {
  const [stream, one] = [name(), event()];
  await using(client.subscribeToStream(stream), async (taker) => {
    await taker.next("caughtUp");
    await client.appendToStream(stream, one);
    equal((await taker.next()).event.id, one.id);
  });
}

async function a_stream_that_was_tombstoned(client) {
  const stream = name();
  await client.tombstoneStream(stream);
  await using(client.subscribeToStream(stream), async (taker) => {
    await throws(StreamDeletedError, { streamName: stream }, () => taker.next());
  });
}

async function all_after_a_position(client) {
  const [stream, other, new_] = [name(), name(), events(5)];
  const { position } = await client.appendToStream(stream, event());
  await client.appendToStream(stream, new_.slice(0, 2));
  await client.appendToStream(other, new_[2]);
  await using(client.subscribeToAll({ fromPosition: position }), async (taker) => {
    const found = await taker.take(3);
    equal(ids(found), ids(new_.slice(0, 3)));
    const info = await taker.next("caughtUp");
    equal(info.position, found[2].event.position);
    await client.appendToStream(stream, new_[3]);
    await client.appendToStream(other, new_[4]);
    equal(ids(await taker.take(2)), ids(new_.slice(3)));
  });
  await using(client.subscribeToAll({ fromPosition: END }), async (taker) => {
    await taker.next("caughtUp");
    const one = event();
    await client.appendToStream(stream, one);
    equal((await taker.next()).event.id, one.id);
  });
}

async function filters(client) {
  const tag = name("f");
  const [order, cart] = [`${tag}-order`, `${tag}-cart`];
  const { position } = await client.appendToStream(name(), event());
  await client.appendToStream(order, event({ type: `${tag}Placed` }));
  await client.appendToStream(cart, event({ type: `${tag}Paid` }));
  const turns = [
    [streamNameFilter({ prefixes: [`${tag}-o`] }), [order]],
    [streamNameFilter({ prefixes: [`${tag}-c`, `${tag}-o`] }), [order, cart]],
    [streamNameFilter({ regex: `^${tag}-c` }), [cart]],
    [streamNameFilter({ regex: `^(?!${tag}-c)` }), [order]],
    [eventTypeFilter({ prefixes: [`${tag}Pl`] }), [order]],
    [eventTypeFilter({ regex: `^${tag}P.{3}$` }), [cart]],
  ];
  for (const [filter, wanted] of turns) {
    await using(client.subscribeToAll({ fromPosition: position, filter }), async (taker) => {
      const caughtUp = await taker.take(wanted.length);
      equal(
        caughtUp.map((it) => it.event.streamId),
        wanted,
      );
      const live = [event({ type: `${tag}Placed` }), event({ type: `${tag}Paid` })];
      await client.appendToStream(order, live[0]);
      await client.appendToStream(cart, live[1]);
      const expected = wanted.map((stream) => live[stream === order ? 0 : 1].id);
      let found = [];
      while (found.at(-1) !== expected.at(-1)) found.push(...ids(await taker.take(1)));
      equal(found.slice(-expected.length), expected);
      check(!live.some((it) => !expected.includes(it.id) && found.includes(it.id)), "more came");
    });
  }
}

async function checkpoints_of_a_filter(client) {
  const [tag, checkpoints] = [name("f"), []];
  const { position } = await client.appendToStream(name(), event());
  const { position: last } = await client.appendToStream(name(), events(60));
  const filter = streamNameFilter({
    prefixes: [tag],
    maxSearchWindow: 5,
    checkpointInterval: 2,
    checkpointReached: (_, reached) => void checkpoints.push(reached.commit),
  });
  const wanted = event();
  await using(client.subscribeToAll({ fromPosition: position, filter }), async (taker) => {
    await taker.next("caughtUp");
    check(
      checkpoints.length >= 6,
      `${checkpoints.length} checkpoints over 60 events, one for each 10`,
    );
    equal(
      checkpoints,
      [...checkpoints].sort((a, b) => (a < b ? -1 : 1)),
    );
    check(checkpoints.at(-1) >= last.commit, "there is no checkpoint at the end");
    await client.appendToStream(`${tag}-1`, wanted);
    equal((await taker.next()).event.id, wanted.id);
  });
  const commit = checkpoints.at(-1);
  const again = client.subscribeToAll({ fromPosition: { commit, prepare: commit }, filter });
  await using(again, async (taker) => equal((await taker.next()).event.id, wanted.id));
}

async function a_category_with_its_links(client) {
  const category = name("cat").replace("-", "");
  const [ce, new_] = [`$ce-${category}`, events(3)];
  await client.appendToStream(`${category}-1`, new_.slice(0, 2));
  const options = { resolveLinkTos: true, fromRevision: START };
  await using(client.subscribeToStream(ce, options), async (taker) => {
    const found = await taker.take(2);
    await client.appendToStream(name(), event());
    await client.appendToStream(`${category}-2`, new_[2]);
    found.push(await taker.next());
    equal(ids(found), ids(new_));
    equal(
      found.map((it) => it.link.streamId),
      [ce, ce, ce],
    );
  });
}

async function many_events_live_and_not(client) {
  const [stream, new_] = [name(), events(1000)];
  await client.appendToStream(stream, new_.slice(0, 400));
  await using(client.subscribeToStream(stream), async (taker) => {
    const found = await taker.take(10);
    for (let start = 400; start < 1000; start += 100) {
      await client.appendToStream(stream, new_.slice(start, start + 100));
    }
    found.push(...(await taker.take(990)));
    equal(ids(found), ids(new_));
  });
}

async function many_subscriptions_on_one_connection(client) {
  const [stream, one] = [name(), event()];
  const subscriptions = Array.from({ length: 50 }, () => client.subscribeToStream(stream));
  const takers = subscriptions.map((it) => new Taker(it));
  await Promise.all(takers.map((it) => it.next("caughtUp")));
  await client.appendToStream(stream, one);
  equal(ids(await Promise.all(takers.map((it) => it.next()))), Array(50).fill(one.id));
  await Promise.all(subscriptions.map((it) => it.unsubscribe()));
}

export default [
  a_stream_from_its_start,
  a_stream_from_a_revision_and_its_end,
  a_stream_that_is_not_there_yet,
  a_stream_that_was_tombstoned,
  all_after_a_position,
  filters,
  checkpoints_of_a_filter,
  a_category_with_its_links,
  many_events_live_and_not,
  many_subscriptions_on_one_connection,
];
