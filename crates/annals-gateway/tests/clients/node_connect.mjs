// Connections: one node, found by its address or by gossip.

import { check, collect, equal, event, kurrent, name } from "./common.mjs";

const { KurrentDBClient } = kurrent;

async function found_by_gossip(_, url) {
  const { host } = new URL(url);
  for (const preference of ["leader", "random"]) {
    const options = `tls=false&nodePreference=${preference}`;
    const other = KurrentDBClient.connectionString(`esdb://${host},${host}?${options}`);
    const stream = name();
    await other.appendToStream(stream, event());
    equal((await collect(other.readStream(stream))).length, 1);
    await other.dispose();
  }
}

async function what_is_not_served(client) {
  let error;
  await client.listProjections().catch((thrown) => (error = thrown));
  check(error?.message.includes("UNIMPLEMENTED"), `what came is ${error}`);
  await client.appendToStream(name(), event());
}

export default [found_by_gossip, what_is_not_served];
