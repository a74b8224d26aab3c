"""bench/peers/servers.py - ringhub and its peers: what to install of them, and how to start each.

Every server gets one core and the configuration that its own documentation advises for many
connections and small messages; what was set, and why, stands beside it. Debian's packages as they
are; the two of Node.js from npm, in the versions of package-lock.json, into build/peers/node.
"""
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import runs  # noqa: E402  bench/runs.py

HERE = pathlib.Path(__file__).resolve().parent
NODE = runs.ROOT / "build" / "peers" / "node"
FILES = 20000  # descriptors and connections that servers are told to expect

# nginx with nchan. One worker, as it has one core. Nothing is logged. A message stays in the
# channel's buffer until all have it: nchan's documentation has each subscriber read from there, so
# the buffer must hold more than is outstanding at any time, else messages would be lost. Shared
# memory for 10,000 channels (idle) and their messages. backlog: nginx's own default is 511.
NGINX = """
load_module /usr/lib/nginx/modules/ngx_nchan_module.so;
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {dir}/pid;
error_log {dir}/log crit;
events {{
    worker_connections {files};
    multi_accept on;
}}
http {{
    access_log off;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    nchan_shared_memory_size 256m;
    nchan_message_buffer_length 256;
    nchan_message_timeout 10s;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location /sub {{
            nchan_subscriber websocket;
            nchan_channel_id $arg_me;
            nchan_subscriber_first_message newest;
        }}
        location /pub {{
            nchan_publisher websocket;
            nchan_channel_id $arg_to;
        }}
        location /both {{
            nchan_pubsub websocket;
            nchan_subscriber_channel_id $arg_me;
            nchan_publisher_channel_id $arg_to;
            nchan_subscriber_first_message newest;
        }}
    }}
}}
"""

# mosquitto. No bound on what is queued for a client, so that nothing is dropped for who is late by
# a batch; no Nagle; nothing logged, nothing stored, no statistics published meanwhile. Version 2.0
# serves WebSocket by libwebsockets, which wants an interface, not an address, and it does not start
# without a listener for plain MQTT beside that one (its issue 2284): a port that nobody uses.
MOSQUITTO = """
listener {unused} 127.0.0.1
listener {port} lo
protocol websockets
allow_anonymous true
max_queued_messages 0
set_tcp_nodelay true
persistence false
sys_interval 0
log_dest none
"""

# nats-server. WebSocket needs to be told that there is no TLS, and not to compress. max_payload and
# max_pending are its defaults, spelt out: 1 MB a message, 64 MB queued for a client.
NATS = """
host: 127.0.0.1
port: -1
websocket {{
    host: 127.0.0.1
    port: {port}
    no_tls: true
    compression: false
}}
max_connections: {files}
max_payload: 1MB
max_pending: 64MB
write_deadline: "10s"
log_file: "{dir}/log"
"""


class Process:
    """A server process and its children, on core 0, listening on 127.0.0.1; ends with the block."""

    def __init__(self, command, config=None, env=None):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="peers-"))
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        file = self.dir / "conf"
        if config:
            file.write_text(config.format(port=self.port, unused=free_port(), dir=self.dir,
                                          files=FILES))
        words = [str(w).format(port=self.port, conf=file, dir=self.dir) for w in command]
        self.process = subprocess.Popen(["taskset", "-c", "0", *words], env=env,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.wait_until_it_listens(words[0])

    def wait_until_it_listens(self, name, seconds=10):
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                time.sleep(0.2)  # that connection is forgotten, what starts up is done
                return
            except OSError:
                time.sleep(0.02)
        said = ""
        if self.process.poll() is not None:
            said = self.process.stderr.read().decode(errors="replace")
        self.__exit__()
        raise SystemExit(f"{name} does not listen: {said}")

    def pids(self):
        """The process and all below it."""
        found = [self.process.pid]
        for pid in found:
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (task / "children").read_text(encoding="ascii").split())
        return found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stderr.close()
        shutil.rmtree(self.dir, ignore_errors=True)


class Ringhub(runs.Server):
    """One shard, as it has one core; otherwise its defaults."""

    def __init__(self):
        folder = runs.make_store()
        super().__init__("0", runs.BUILD / "ringhubd", "--listen", "127.0.0.1:0", "--shards", 1,
                         "--set", "echo.enabled=true", "--set", "log.level=warn",
                         "--set", f"store.path={folder}", folder=folder)

    def pids(self):
        return [self.pid]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def nginx():
    return Process(["nginx", "-c", "{conf}", "-p", "{dir}"], NGINX)


def mosquitto():
    return Process(["mosquitto", "-c", "{conf}"], MOSQUITTO)


def nats():
    # One core, so one P: Go would find that out by itself.
    return Process(["nats-server", "-c", "{conf}"], NATS, env={**os.environ, "GOMAXPROCS": "1"})


def node(script, *words):
    # NODE_ENV: as Node's packages advise for servers.
    env = {**os.environ, "NODE_PATH": str(NODE / "node_modules"), "NODE_ENV": "production"}
    return Process(["node", HERE / script, "{port}", *words], env=env)


# ---- installing ----

PACKAGES = {"nchan": ("nginx", "libnginx-mod-nchan"), "mosquitto": ("mosquitto",),
            "nats": ("nats-server",)}
NODE_PEERS = ("ws", "ws-plain", "socket.io")


def is_installed(package):
    status = subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Status}", package],
                            capture_output=True, text=True, check=False)
    return status.stdout == "installed"


def install_packages(packages):
    """apt-get; their services are not to run here: we start the programs ourselves."""
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    print(f"Will install with apt-get{' (through sudo)' if as_root else ''}: {' '.join(packages)}",
          flush=True)
    env = [*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"]
    subprocess.run([*env, "update"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*env, "install", "--no-install-recommends", *packages], check=True,
                   stdout=subprocess.DEVNULL)
    services = [p for p in packages if p in ("nginx", "mosquitto", "nats-server")]
    if services and pathlib.Path("/run/systemd/system").exists():
        print(f"Will stop and disable the services that came with them: {' '.join(services)}")
        subprocess.run([*as_root, "systemctl", "disable", "--now", *services], check=False)


def install_node():
    lock = HERE / "package-lock.json"
    done = NODE / "package-lock.json"
    if done.exists() and done.read_bytes() == lock.read_bytes():
        return
    print(f"Will install what package-lock.json says with npm ci into {NODE}", flush=True)
    shutil.rmtree(NODE, ignore_errors=True)
    NODE.mkdir(parents=True)
    shutil.copy(HERE / "package.json", NODE)
    shutil.copy(lock, NODE)
    try:
        # Without scripts of packages: bufferutil brings what it has built.
        subprocess.run(["npm", "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"],
                       cwd=NODE, check=True)
    except BaseException:
        done.unlink(missing_ok=True)  # so that the next run tries again
        raise


def install(peers):
    """What these peers need and is not there."""
    wanted = [p for peer in peers for p in PACKAGES.get(peer, ())]
    on_node = any(peer in NODE_PEERS for peer in peers)
    if on_node:
        wanted += [p for p in ("nodejs", "npm") if not shutil.which({"nodejs": "node"}.get(p, p))]
    missing = [p for p in wanted if not is_installed(p)]
    if missing:
        install_packages(missing)
    if on_node:
        install_node()


def versions():
    """A line for the report."""
    found = []
    for package in ("nginx", "libnginx-mod-nchan", "mosquitto", "nats-server"):
        said = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package],
                              capture_output=True, text=True, check=False).stdout
        found += [f"{package} {said}"] if said else []
    if shutil.which("node"):
        found.append("node " + subprocess.run(["node", "--version"], capture_output=True, text=True,
                                              check=True).stdout.strip())
    for name in ("ws", "socket.io", "bufferutil"):
        file = NODE / "node_modules" / name / "package.json"
        if file.exists():
            found.append(f"{name} " + file.read_text().split('"version": "', 1)[1].split('"')[0])
    return ", ".join(found)
