// Drives a server with each function of toxiproxy-node-client, version 4:
//
//     node toxiproxy_client.js API BACKEND
//
// Prints, as JSON, the functions that the client has, and those that were called.
"use strict";

const assert = require("node:assert/strict");
const net = require("node:net");
const client = require("toxiproxy-node-client");
const { ToxiproxyError } = { ...require("toxiproxy-node-client/dist/Toxiproxy"), ...client };
const helper = require("toxiproxy-node-client/dist/TestHelper");

const [api, backend] = process.argv.slice(2);
const functions = [];
const called = new Set();

function watch(object, prefix) {
  for (const name of Object.getOwnPropertyNames(object)) {
    const original = object[name];
    if (name === "constructor" || typeof original !== "function") continue;
    const full = `${prefix}.${name}`;
    functions.push(full);
    object[name] = function (...args) {
      called.add(full);
      return original.apply(this, args);
    };
  }
}

const classes = { ...client };
try {
  classes.HttpClient = require("toxiproxy-node-client/dist/HttpClient").HttpClient;
} catch {
  // It has one since 4.1.
}
for (const [name, cls] of Object.entries(classes)) watch(cls.prototype, name);
watch(helper, "TestHelper");

function goesThrough(address) {
  const [host, port] = address.split(":");
  return new Promise((resolve) => {
    const socket = net.connect(Number(port), host, () => socket.write("hello"));
    socket.on("data", () => socket.end(() => resolve(true)));
    socket.on("error", () => resolve(false));
    socket.on("close", () => resolve(false));
  });
}

function body(name, listen, more) {
  return { name, listen, upstream: backend, ...more };
}

async function main() {
  const server = new client.Toxiproxy(api);
  const { HttpClient = Object } = classes;
  assert.ok(server.getApi() instanceof HttpClient);
  const version = await server.getVersion(); // which is text since 4.1
  assert.ok((version.data ?? JSON.parse(version)).version);
  assert.deepEqual(await server.getAll(), {});

  const one = await server.createProxy(body("one", "localhost:0"));
  assert.ok(await goesThrough(one.listen));
  assert.equal(one.getToxiproxy(), server);
  assert.equal(one.getHost(), api);
  assert.equal(one.getPath(), `${api}/proxies/one`);
  assert.deepEqual(one.toJson(), body("one", one.listen, { enabled: true }));
  assert.deepEqual((await server.get("one")).toJson(), one.toJson());
  const again = server.createProxy(body("one", "localhost:0"));
  await assert.rejects(again, (error) => {
    assert.ok(error instanceof ToxiproxyError);
    return /409/.test(error.message);
  });
  await assert.rejects(server.get("nobody"), { message: /404/ });

  const off = await one.update({ ...one.toJson(), enabled: false });
  assert.equal(off.enabled, false);
  assert.equal(await goesThrough(one.listen), false);
  const on = await one.update({ enabled: true });
  assert.deepEqual(on.toJson(), one.toJson());
  assert.ok(await goesThrough(one.listen));

  const latency = await one.addToxic({
    attributes: { latency: 5, jitter: 1 },
    name: "slow",
    stream: "upstream",
    toxicity: 1.0,
    type: "latency",
  });
  assert.equal(latency.getPath(), `${api}/proxies/one/toxics/slow`);
  assert.deepEqual(latency.toJson(), {
    attributes: { latency: 5, jitter: 1 },
    name: "slow",
    stream: "upstream",
    toxicity: 1,
    type: "latency",
  });
  const changed = await latency.update({ ...latency.toJson(), attributes: { latency: 7 } });
  assert.deepEqual(changed.attributes, { latency: 7, jitter: 1 });
  assert.deepEqual((await one.getToxic("slow")).toJson(), changed.toJson());
  assert.deepEqual((await changed.update({ toxicity: 0.5 })).toxicity, 0.5);
  assert.deepEqual((await changed.update({ ...changed, toxicity: 0.25 })).toxicity, 0.25);
  assert.deepEqual((await one.update({ ...one, enabled: true })).toJson(), one.toJson());
  await changed.remove();
  await assert.rejects(one.getToxic("slow"), { message: /404/ });
  await assert.rejects(one.addToxic({ type: "chaos" }), { message: /400/ });

  const made = await helper.createToxic(one, "limit_data", { bytes: 10 });
  assert.deepEqual(made.attributes, { bytes: 10 });
  await one.update({ enabled: false });
  await server.reset();
  assert.equal((await server.get("one")).enabled, true);
  await assert.rejects(made.remove(), { message: /404/ });

  const populated = await server.populate([
    body("one", one.listen),
    body("two", "localhost:0", { enabled: false }),
  ]);
  assert.deepEqual(Object.keys(populated), ["one", "two"]);
  assert.deepEqual(populated.one.toJson(), one.toJson());
  assert.equal(populated.two.listen, "localhost:0");
  assert.deepEqual(Object.keys(await server.getAll()).sort(), ["one", "two"]);
  await populated.two.remove();
  assert.deepEqual(Object.keys(await server.getAll()), ["one"]);

  helper.toxiproxyUrl = api; // else localhost:8474
  const { proxy, toxiproxy } = await helper.createProxy("helper's");
  assert.equal(toxiproxy.host, api);
  assert.equal(proxy.upstream, "localhost:6379");
  await helper.removeAllProxies();
  assert.deepEqual(await server.getAll(), {});
}

main().then(
  () => console.log(JSON.stringify({ functions, called: [...called] })),
  (error) => {
    console.error(error);
    process.exitCode = 1;
  },
);
