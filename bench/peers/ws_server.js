// bench/peers/ws_server.js - what one writes on `ws` for these loads: echo, a room, users.
//
// usage: node ws_server.js PORT [plain]
//
// ws is a library: how a message gets to many is the program's own business. `plain` sends as the
// broadcast in its README does, client by client. Otherwise it does what is known to be best:
// a frame is made once for all (WebSocket.Sender.frame, as Socket.IO does it, too), and what was
// published in one turn of the event loop leaves as one write per subscriber. Messages to users
// are gathered in the same way: a socket is corked until the turn ends.
//
// perMessageDeflate is off, as it is by default and as its README advises; so is clientTracking,
// which nobody here needs. bufferutil is installed, as its README advises for masking.
'use strict';
const { WebSocket, WebSocketServer } = require('ws');

const [port, how] = process.argv.slice(2);
const plain = how === 'plain';
const rooms = new Map(); // name: {members, frames}
const users = new Map();

function frame(data) {
  return Buffer.concat(WebSocket.Sender.frame(data, {
    fin: true, rsv1: false, opcode: 1, mask: false, readOnly: true,
  }));
}

function roomOf(name) {
  let room = rooms.get(name);
  if (!room) rooms.set(name, (room = { members: new Set(), frames: [] }));
  return room;
}

function flush(room) {
  const bytes = room.frames.length === 1 ? room.frames[0] : Buffer.concat(room.frames);
  room.frames = [];
  for (const socket of room.members) socket._socket.write(bytes);
}

function publish(room, data) {
  if (plain) {
    for (const socket of room.members)
      if (socket.readyState === WebSocket.OPEN) socket.send(data, { binary: false });
    return;
  }
  if (room.frames.push(frame(data)) === 1) setImmediate(flush, room);
}

// What a socket is sent in this turn leaves in one write.
function sendGathered(socket, data) {
  const stream = socket._socket;
  if (!plain && stream.writableCorked === 0) {
    stream.cork();
    setImmediate(() => stream.uncork());
  }
  socket.send(data, { binary: false });
}

function sendTo(data) {
  const space = data.indexOf(32);
  const socket = users.get(data.latin1Slice(0, space));
  if (socket) sendGathered(socket, data.subarray(space + 1));
}

const server = new WebSocketServer({
  host: '127.0.0.1', port: Number(port), perMessageDeflate: false, clientTracking: false,
  backlog: 4096,
});

server.on('connection', (socket, request) => {
  const [, kind, name] = request.url.split('/');
  socket.on('error', () => {});
  if (kind === 'echo') {
    socket.on('message', (data) => sendGathered(socket, data));
  } else if (kind === 'room') {
    const { members } = roomOf(name);
    members.add(socket);
    socket.on('close', () => members.delete(socket));
  } else if (kind === 'publish') {
    socket.on('message', (data) => publish(roomOf(name), data));
  } else if (kind === 'user') {
    users.set(name, socket);
    socket.on('message', sendTo);
    socket.on('close', () => users.delete(name));
  } else {
    socket.close(1008);
  }
});
