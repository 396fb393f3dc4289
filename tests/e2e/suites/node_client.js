// Drives a server with each function of toxiproxy-node-client, versions 2 and 3:
//
//     node node_client.js API BACKEND
//
// Prints, as JSON, the functions that the client has, and those that were called.
"use strict";

const assert = require("node:assert/strict");
const net = require("node:net");
const client = require("toxiproxy-node-client");

const [api, backend] = process.argv.slice(2);
const functions = [];
const called = new Set();

for (const name of ["Toxiproxy", "Proxy", "Toxic"]) {
  const prototype = client[name].prototype;
  for (const method of Object.getOwnPropertyNames(prototype)) {
    if (method === "constructor") continue;
    const original = prototype[method];
    const full = `${name}.${method}`;
    functions.push(full);
    prototype[method] = function (...args) {
      called.add(full);
      return original.apply(this, args);
    };
  }
}

function goesThrough(address) {
  const [host, port] = address.split(":");
  return new Promise((resolve) => {
    const socket = net.connect(Number(port), host, () => socket.write("hello"));
    socket.on("data", () => socket.end(() => resolve(true)));
    socket.on("error", () => resolve(false));
    socket.on("close", () => resolve(false));
  });
}

const ATTRIBUTES = {
  latency: { latency: 5, jitter: 1 },
  bandwidth: { rate: 1000 },
  slow_close: { delay: 5 },
  timeout: { timeout: 5 },
  reset_peer: { timeout: 5 },
  slicer: { average_size: 64, size_variation: 8, delay: 10 },
  limit_data: { bytes: 1000 },
};

async function main() {
  const server = new client.Toxiproxy(api);
  const version = await server.getVersion();
  assert.match((version.data ?? version).version, /^\d+\.\d+\.\d+$/);
  assert.deepEqual(await server.getAll(), {});

  const body = { name: "one", listen: "localhost:0", upstream: backend };
  const one = await server.createProxy(body);
  assert.ok(await goesThrough(one.listen));
  assert.equal(one.getHost(), api);
  assert.equal(one.getPath(), `${api}/proxies/one`);
  const json = { ...body, listen: one.listen, enabled: true, toxics: [] };
  assert.deepEqual(one.toJson(), json);
  assert.deepEqual((await server.get("one")).toJson(), json);
  await assert.rejects(server.createProxy(body), /409|already exists/);
  await assert.rejects(server.get("nobody"), /404/);

  one.enabled = false;
  assert.equal((await one.update()).enabled, false);
  assert.equal(await goesThrough(one.listen), false);
  one.enabled = true;
  assert.deepEqual((await one.update()).toJson(), json);
  assert.ok(await goesThrough(one.listen));

  for (const [type, attributes] of Object.entries(ATTRIBUTES)) {
    // As its example has it: a toxic that knows its proxy, which is sent along.
    const toxic = await one.addToxic(new client.Toxic(one, { type, attributes }));
    assert.deepEqual(toxic.toJson(), {
      attributes,
      name: `${type}_downstream`,
      stream: "downstream",
      toxicity: 1,
      type,
    });
    assert.equal(toxic.getHost(), api);
    assert.equal(toxic.getPath(), `${api}/proxies/one/toxics/${toxic.name}`);
    await one.refreshToxics();
    assert.deepEqual(one.toJson().toxics, [toxic.toJson()]);
    toxic.toxicity = 0.5;
    await toxic.update();
    await toxic.refresh();
    assert.equal(toxic.toxicity, 0.5);
    await toxic.remove();
    await assert.rejects(toxic.refresh(), /404/);
    await one.refreshToxics();
    assert.deepEqual(one.toxics, []);
  }
  await assert.rejects(one.addToxic({ type: "chaos" }), /400/);

  await one.addToxic({ type: "latency", name: "mine", stream: "upstream", toxicity: 1 });
  one.enabled = false;
  await one.update();
  await server.reset();
  assert.deepEqual((await server.get("one")).toJson(), json);

  const two = { name: "two", listen: "localhost:0", upstream: backend, enabled: false };
  const populated = await server.populate([{ ...body, listen: one.listen }, two]);
  assert.deepEqual(Object.keys(populated), ["one", "two"]);
  assert.equal(populated.two.enabled, false);
  assert.deepEqual(Object.keys(await server.getAll()).sort(), ["one", "two"]);
  for (const proxy of Object.values(populated)) await proxy.remove();
  await assert.rejects(populated.two.remove(), /404/);
  assert.deepEqual(await server.getAll(), {});
}

main().then(
  () => console.log(JSON.stringify({ functions, called: [...called] })),
  (error) => {
    console.error(error);
    process.exitCode = 1;
  },
);
