// bench/peers/socketio_server.js - Socket.IO for the loads of bench/peers: echo, rooms, users.
//
// usage: node socketio_server.js PORT
//
// Tuned as https://socket.io/docs/v4/performance-tuning/ and .../memory-usage/ advise: transport
// WebSocket only, so no session begins with polling; bufferutil is installed; perMessageDeflate is
// off (the default since version 3); the first HTTP request is let go of, which saves memory. A
// user is a room of its name, as its documentation recommends for messages to users.
'use strict';
const http = require('http');
const { Server } = require('socket.io');

const server = http.createServer();
const io = new Server(server, {
  transports: ['websocket'], perMessageDeflate: false, httpCompression: false, serveClient: false,
});

io.engine.on('connection', (raw) => { raw.request = null; });

io.on('connection', (socket) => {
  socket.on('join', (name, done) => { socket.join(name); done(); });
  socket.on('echo', (text) => socket.emit('m', text));
  socket.on('to', (name, text) => io.to(name).emit('m', text));
});

server.listen({ host: '127.0.0.1', port: Number(process.argv[2]), backlog: 4096 });
