// bench/peers/faulty_server.js - an echo server, wrong once in 50 messages: does peer_load see it?
//
// usage: node faulty_server.js PORT lose|swap|change|double|close
'use strict';
const { WebSocketServer } = require('ws');

const [port, fault] = process.argv.slice(2);
const faults = {
  lose() {},
  swap(socket, text) { socket.held = text; },
  change(socket, text) { socket.send(text.slice(0, -1) + (text.endsWith('a') ? 'b' : 'a')); },
  double(socket, text) { socket.send(text); socket.send(text); },
  close(socket) { socket.close(); },
};

new WebSocketServer({ host: '127.0.0.1', port: Number(port) }).on('connection', (socket) => {
  let count = 0;
  socket.on('message', (data) => {
    const text = data.toString();
    if (++count % 50 === 0) {
      faults[fault](socket, text);
      return;
    }
    socket.send(text);
    if (socket.held) socket.send(socket.held);
    socket.held = undefined;
  });
});
