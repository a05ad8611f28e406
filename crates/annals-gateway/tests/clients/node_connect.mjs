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
  await client.createProjection("mine", "fromAll()").catch((thrown) => (error = thrown));
  check(error?.message.includes("UNIMPLEMENTED"), `what came is ${error}`);
  await client.appendToStream(name(), event());
}

async function system_projections_are_running(client) {
  await client.enableProjection("$by_category");
  const found = (await client.listProjections()).find((it) => it.name === "$by_category");
  equal(found?.projectionStatus, "Running");
}

export default [found_by_gossip, what_is_not_served, system_projections_are_running];
