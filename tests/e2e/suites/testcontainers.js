// Drives what @testcontainers/toxiproxy makes of a started container: node testcontainers.js
//
// The container is this machine's loopback, whose ports need no mapping; the API is at port 8474 of
// it. What is asked of the module is what its docs show.
"use strict";

const assert = require("node:assert/strict");
const http = require("node:http");
const testcontainers = require("@testcontainers/toxiproxy");

const container = new testcontainers.StartedToxiProxyContainer({
  getHost: () => "127.0.0.1",
  getMappedPort: (port) => port,
});

function get(proxy) {
  return fetch(`http://${proxy.host}:${proxy.port}/`, { headers: { connection: "close" } });
}

async function main(upstream) {
  assert.ok(JSON.parse(await container.client.getVersion()).version);

  const app = await container.createProxy({ name: "app", upstream });
  assert.deepEqual([app.host, app.port], ["127.0.0.1", 8666]);
  assert.equal(await (await get(app)).text(), "hello");
  const second = await container.createProxy({ name: "second", upstream });
  assert.equal(second.port, 8667);
  assert.equal((await get(second)).status, 200);

  await app.setEnabled(false);
  await assert.rejects(get(app), (error) => error.cause.code === "ECONNREFUSED");
  assert.equal((await get(second)).status, 200);
  await app.setEnabled(true);
  assert.equal((await get(app)).status, 200);

  const toxic = await app.instance.addToxic({
    attributes: { jitter: 50, latency: 500 },
    name: "upstream-latency",
    stream: "upstream",
    toxicity: 1,
    type: "latency",
  });
  const before = performance.now();
  await get(app);
  assert.ok(performance.now() - before > 440);
  await toxic.remove();
  await assert.rejects(app.instance.getToxic("upstream-latency"), /404/);

  for (let number = 2; number < 32; number++) {
    await container.createProxy({ name: `proxy ${number}`, upstream });
  }
  await assert.rejects(container.createProxy({ name: "one more", upstream }), /No available ports/);
  assert.equal(Object.keys(await container.client.getAll()).length, 32);
}

const backend = http.createServer((_, answer) => answer.end("hello"));
backend.listen(0, "127.0.0.1", () => {
  main(`127.0.0.1:${backend.address().port}`).then(
    () => {
      console.log("all is well");
      backend.close();
    },
    (error) => {
      console.error(error);
      process.exit(1);
    },
  );
});
