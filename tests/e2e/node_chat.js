// tests/e2e/node_chat.js URL COUNT [DEFLATE [PAD]] - users on npm's `ws` write to each other; prints what
// happened. DEFLATE is the option perMessageDeflate, as JSON; PAD, letters in each message besides.
//
// COUNT users connect; each sends one message to every user, in one burst, and ends when it has all
// answers and all messages. test_node.py judges the JSON that is printed.
'use strict';
const WebSocket = require('ws');

const [url, count] = [process.argv[2], Number(process.argv[3])];
const perMessageDeflate = process.argv[4] ? JSON.parse(process.argv[4]) : false;
const pad = 'grüße 😀 '.repeat(Math.ceil((Number(process.argv[5]) || 9) / 9)).trim();
const name = (i) => `node-${i}`;

function talk(i) {
  const seen = { user: null, answers: [], from: [], bad: [], close: null };
  return new Promise((resolve, reject) => {
    const ws = new WebSocket(`${url}/ws?user_id=${name(i)}`, 'ringhub.v1', { perMessageDeflate });
    ws.on('error', reject);
    ws.on('close', (code) => { seen.close = code; resolve(seen); });
    ws.on('message', (data, isBinary) => {
      const got = JSON.parse(data.toString());
      if (isBinary) seen.bad.push(got);
      else if (got.event === 'welcome') { seen.user = got.data.user; arrived(); }
      else if (got.type === 'response') seen.answers.push(got.code);
      else if (got.event === 'message' && got.data.content.to === name(i)) seen.from.push(got.data.from);
      else seen.bad.push(got);
      if (seen.answers.length + seen.bad.length >= count && seen.from.length >= count) ws.close(1000);
    });
    everyone.then(() => {
      for (let k = 0; k < count; k++) {
        ws.send(JSON.stringify({
          type: 'request', event: 'message.send', request_id: String(k),
          data: { to: name(k), content: { to: name(k), text: pad } },
        }));
      }
    });
  });
}

let waiting = count;
let allHere;
const everyone = new Promise((resolve) => { allHere = resolve; });
function arrived() { if (--waiting === 0) allHere(); }

Promise.all(Array.from({ length: count }, (_, i) => talk(i)))
  .then((all) => console.log(JSON.stringify(all)))
  .catch((why) => { console.error(why); process.exit(1); });
