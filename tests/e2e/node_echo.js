// tests/e2e/node_echo.js URL [DEFLATE] - npm's `ws` against /echo: sizes, fragments, ping, close codes.
//
// DEFLATE is its option perMessageDeflate, as JSON; with it, compression has to be agreed on.
'use strict';
const assert = require('assert');
const { once } = require('events');
const WebSocket = require('ws');

const url = `${process.argv[2]}/echo`;
const deflate = process.argv[3] ? JSON.parse(process.argv[3]) : false;

async function open() {
  const ws = new WebSocket(url, { perMessageDeflate: deflate });
  await once(ws, 'open');
  assert.strictEqual(ws.extensions.includes('permessage-deflate'), Boolean(deflate));
  return ws;
}

async function sizes() {
  const ws = await open();
  for (const size of [0, 1, 125, 126, 65535, 65536, 1 << 20]) {
    for (const binary of [false, true]) {
      const payload = Buffer.alloc(size, 'a');
      ws.send(payload, { binary });
      const [data, isBinary] = await once(ws, 'message');
      assert.strictEqual(isBinary, binary);
      assert(data.equals(payload), `size ${size}`);
    }
  }
  ws.close();
}

async function fragments() {
  const ws = await open();
  const ponged = once(ws, 'pong');
  ws.send('grü', { fin: false });
  ws.ping('between');
  ws.send('', { fin: false });
  ws.send('ße', { fin: true });
  const [data, isBinary] = await once(ws, 'message');
  assert.strictEqual(isBinary, false);
  assert.strictEqual(data.toString(), 'grüße');
  assert.strictEqual((await ponged)[0].toString(), 'between');
  ws.close();
}

async function closes() {
  for (const code of [1000, 1001, 1008, 3000, 4999]) {
    const ws = await open();
    ws.close(code, 'a reason');
    assert.strictEqual((await once(ws, 'close'))[0], code);
  }
}

async function many() {
  const ws = await open();
  const got = [];
  ws.on('message', (data) => got.push(data.toString()));
  for (let i = 0; i < 5000; i++) ws.send(`m${i}`);
  while (got.length < 5000) await once(ws, 'message');
  assert.deepStrictEqual(got, Array.from({ length: 5000 }, (_, i) => `m${i}`));
  ws.close();
}

(async () => { await sizes(); await fragments(); await closes(); await many(); console.log('ok'); })()
  .catch((why) => { console.error(why); process.exit(1); });
