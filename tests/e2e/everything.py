"""Two edges on one Redis, with all that they do at once: everything.py --edge BINARY --seconds N [--seed N] [--rss-after SECONDS]

Readers ask for whole pages, ranges, validations and heads, over HTTP/1.1 and (curl) HTTP/2; sockets echo; a publisher changes pages and
purges them; the origin is slow, fails and breaks off; one edge is killed and started again, so is Redis; the other edge lives as long as
the run. Every byte that comes is compared with what the origin's page says in the version that the answer names, and no answer may be
of an older version than a purge that was acknowledged before it was asked for. The memory of the edge that lives must not grow."""

import argparse
import asyncio
import base64
import collections
import functools
import gzip
import hashlib
import json
import pathlib
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

PAGES = 400
READERS = 12
SOCKETS = 8
# Longer than anything takes on a busy machine.
STUCK = 30


@functools.lru_cache(maxsize=256)
def body(page, version):
    """The bytes of a page: small ones most, some of several parts; those of every fourth page are text."""
    size = (300, 4_000, 40_000, 90_000, 300_000, 2_500_000)[page % 6]
    digest = hashlib.shake_128(f"{page}:{version}".encode()).digest(size)
    return base64.b16encode(digest)[:size] if is_text(page) else digest


def is_text(page):
    return page % 4 == 0


def path(page):
    """Texts are compressed, the others are not and can go the short way."""
    return f"/{'t' if is_text(page) else 'p'}/{page}"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


class Failure(Exception):
    """Something was seen that must not be."""


class Head:
    def __init__(self, data):
        first, *lines = data.decode("latin-1").split("\r\n")
        self.first = first.split(" ", 2)
        self.fields = {}
        for line in lines:
            name, _, value = line.partition(":")
            if name:
                self.fields[name.strip().lower()] = value.strip()

    def get(self, name, default=""):
        return self.fields.get(name, default)


async def read_head(reader):
    return Head((await reader.readuntil(b"\r\n\r\n"))[:-4])


class Origin:
    """Pages with versions, behind strong validators; and sockets that echo."""

    def __init__(self, chance):
        self.versions = collections.Counter()
        self.chance = chance
        self.asked, self.cut = 0, 0

    async def serve(self, reader, writer):
        try:
            while True:
                head = await read_head(reader)
                self.asked += 1
                if head.get("upgrade").lower() == "websocket":
                    return await self.echo(head, reader, writer)
                if not await self.answer(head, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def answer(self, head, writer):
        method, target = head.first[0], head.first[1]
        page = int(target.rsplit("/", 1)[1])
        version = self.versions[page]
        etag = f'"{page}-{version}"'
        data = body(page, version)
        status, extra, start, end = "200 OK", "", 0, len(data)
        luck = self.chance.random()
        if luck < 0.01:
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy")
            await writer.drain()
            return True
        if luck < 0.06:
            await asyncio.sleep(self.chance.random() * 0.1)
        if head.get("if-match", etag) != etag:
            writer.write(b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return True
        if head.get("if-none-match") == etag:
            status, end = "304 Not Modified", 0
        elif head.get("range").startswith("bytes=") and head.get("if-range", etag) == etag:
            first, _, last = head.get("range")[6:].partition("-")
            if "," not in last and (first or last):
                start = int(first) if first else max(0, len(data) - int(last))
                end = min(len(data), int(last) + 1) if first and last else len(data)
                if start >= end:
                    status, extra, start, end = "416 Range Not Satisfiable", f"Content-Range: bytes */{len(data)}\r\n", 0, 0
                else:
                    status, extra = "206 Partial Content", f"Content-Range: bytes {start}-{end - 1}/{len(data)}\r\n"
        length = "" if status.startswith("304") else f"Content-Length: {end - start}\r\n"
        kind = "text/html" if is_text(page) else "application/octet-stream"
        life = self.chance.choice((1, 5, 60))
        writer.write(
            f"HTTP/1.1 {status}\r\nETag: {etag}\r\nX-Version: {version}\r\nCache-Control: max-age={life}\r\nContent-Type: {kind}\r\n"
            f"Surrogate-Key: page-{page} all\r\n{length}{extra}\r\n".encode()
        )
        if method != "HEAD" and end > start:
            cut = self.chance.random() < 0.005
            writer.write(data[start : start + (end - start) // 2 if cut else end])
            if cut:
                self.cut += 1
                return False
        await writer.drain()
        return True

    async def echo(self, head, reader, writer):
        accept = base64.b64encode(hashlib.sha1((head.get("sec-websocket-key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        while True:
            _, length, mask = struct.unpack("!BB4s", await reader.readexactly(6))
            data = await reader.readexactly(length & 127)
            plain = bytes(b ^ mask[i % 4] for i, b in enumerate(data))
            writer.write(struct.pack("!BB", 0x82, len(plain)) + plain)
            await writer.drain()


class Process:
    """An edge or Redis. It ends with this script, also when that is killed: the kernel sees to it."""

    def __init__(self, log, *command):
        self.command, self.log, self.process = command, log, None

    def start(self):
        with open(self.log, "ab") as log:
            command = ["setpriv", "--pdeathsig", "KILL", "--", *self.command]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def has_ended(self):
        return self.process.poll() is not None

    def end(self):
        """At once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    async def leave(self):
        """In peace; gives the status."""
        self.process.terminate()
        try:
            return await asyncio.to_thread(self.process.wait, STUCK)
        except subprocess.TimeoutExpired:
            return "none in time"

    def rss(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) * 1024


class World:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.random = random.Random(options.seed)
        self.origin = Origin(random.Random(options.seed + 1))
        self.floors = collections.Counter()
        self.counts = collections.Counter()
        self.failures = []
        self.over = False
        self.edges, self.redis = [], Process(None)

    def fail(self, what):
        self.failures.append(what)
        self.over = True
        print(f"FAIL  {what}", file=sys.stderr)

    async def set_up(self):
        server = await asyncio.start_server(self.origin.serve, "127.0.0.1", 0, limit=1 << 16)
        self.server = server
        port = server.sockets[0].getsockname()[1]
        redis_port = free_port()
        self.redis = Process(
            self.folder / "redis.log", shutil.which("redis-server"), "--port", str(redis_port), "--bind", "127.0.0.1", "--save", "",
            "--appendonly", "yes", "--appendfsync", "always", "--dir", str(self.folder),
        )
        self.redis.start()
        for name in ("a", "b"):
            listener, admin = free_port(), free_port()
            file = self.folder / f"{name}.yaml"
            file.write_text(CONFIG.format(name=name, listener=listener, admin=admin, origin=port, redis=redis_port, folder=self.folder))
            edge = Process(self.folder / f"{name}.log", self.options.edge, "run", "-c", str(file))
            edge.listener, edge.admin = listener, admin
            edge.start()
            self.edges.append(edge)
        for edge in self.edges:
            await self.ready(edge)

    def host(self, port):
        """The pages' host, or that of a control listener."""
        return "localhost" if any(port == edge.admin for edge in self.edges) else "a.test"

    async def ready(self, edge):
        begun = time.monotonic()
        while time.monotonic() - begun < STUCK:
            try:
                head, _ = await self.ask(edge.admin, "GET", "/readyz")
                if head.first[1] == "200":
                    return
            except (OSError, asyncio.IncompleteReadError):
                pass
            await asyncio.sleep(0.05)
        raise Failure("an edge is not ready again")

    async def ask(self, port, method, target, fields="", data=b""):
        """One request over a connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            return await self.ask_over(reader, writer, method, target, fields, data, self.host(port))
        finally:
            writer.close()

    async def ask_over(self, reader, writer, method, target, fields="", data=b"", host="a.test"):
        length = f"Content-Length: {len(data)}\r\n" if data else ""
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{length}{fields}\r\n".encode() + data)
        head = await asyncio.wait_for(read_head(reader), STUCK)
        if method == "HEAD" or head.first[1] in ("304", "204"):
            return head, b""
        if head.get("transfer-encoding") == "chunked":
            pieces = []
            while size := int(await asyncio.wait_for(reader.readuntil(b"\r\n"), STUCK), 16):
                pieces.append((await asyncio.wait_for(reader.readexactly(size + 2), STUCK))[:-2])
            await asyncio.wait_for(reader.readuntil(b"\r\n"), STUCK)
            return head, b"".join(pieces)
        return head, await asyncio.wait_for(reader.readexactly(int(head.get("content-length", "0"))), STUCK)

    def check(self, page, floor, head, data, asked):
        """Is this answer exact, and new enough?"""
        status = head.first[1]
        self.counts[status] += 1
        if status.startswith("5") or status == "412":
            return
        version = int(head.get("x-version", "-1"))
        where = f"page {page}, {asked}: {status} {head.fields}"
        if version < floor:
            raise Failure(f"version {version} after {floor} was acknowledged; {where}")
        whole = body(page, version)
        if head.get("content-encoding") == "gzip":
            self.counts["gzip"] += 1
            data = gzip.decompress(data)
        if "; hit" in head.get("cache-status"):
            self.counts["hit"] += 1
        if status == "206" and not head.get("content-type").startswith("multipart/"):
            first, last = head.get("content-range").split(" ")[1].split("/")[0].split("-")
            whole = whole[int(first) : int(last) + 1]
        if status in ("200", "206") and asked != "HEAD" and not head.get("content-type").startswith("multipart/") and data != whole:
            raise Failure(f"{len(data)} bytes that are not the page's; {where}")

    async def read(self, which):
        """One reader: a connection that is kept as long as it lasts."""
        chance = random.Random(self.options.seed * 1000 + which)
        connection = None
        while not self.over:
            edge = self.edges[chance.randrange(2)] if connection is None else connection[2]
            page = min(chance.randrange(PAGES), chance.randrange(PAGES))
            floor, size = self.floors[page], len(body(page, 0))
            kind = chance.choice(("whole", "whole", "whole", "range", "suffix", "validate", "HEAD", "gzip", "fresh"))
            fields = {
                "range": lambda: f"Range: bytes={(at := chance.randrange(size))}-{at + chance.randrange(size)}\r\n",
                "suffix": lambda: f"Range: bytes=-{chance.randrange(1, size)}\r\n",
                "validate": lambda: f'If-None-Match: "{page}-{self.origin.versions[page]}"\r\n',
                "gzip": lambda: "Accept-Encoding: gzip\r\n",
                "fresh": lambda: "Cache-Control: no-cache\r\n",
            }.get(kind, lambda: "")()
            try:
                if connection is None:
                    connection = (*await asyncio.open_connection("127.0.0.1", edge.listener, limit=1 << 22), edge)
                head, data = await self.ask_over(connection[0], connection[1], "HEAD" if kind == "HEAD" else "GET", path(page), fields)
                self.check(page, floor, head, data, kind)
                if head.get("connection") == "close" or chance.random() < 0.02:
                    connection[1].close()
                    connection = None
            except TimeoutError:
                # Before OSError, of which it is one.
                return self.fail(f"page {page} is stuck ({kind})")
            except (OSError, asyncio.IncompleteReadError):
                self.counts["broken, of a" if edge is self.edges[0] else "broken, of b"] += 1
                if connection is not None:
                    connection[1].close()
                connection = None
                await asyncio.sleep(0.01)
            except Failure as failure:
                return self.fail(str(failure))

    async def read_by_http2(self, which):
        """curl; one page each time, since the version that Debian 12 has cannot use a connection twice without TLS."""
        chance = random.Random(self.options.seed * 3000 + which)
        head_file, data_file = self.folder / f"curl-{which}.head", self.folder / f"curl-{which}"
        while not self.over:
            page = min(chance.randrange(PAGES), chance.randrange(PAGES))
            floor = self.floors[page]
            url = f"http://127.0.0.1:{self.edges[0].listener}{path(page)}"
            process = await asyncio.create_subprocess_exec(
                "curl", "-s", "--max-time", str(STUCK), "--http2-prior-knowledge", "-H", "Host: a.test", "-D", head_file, "-o", data_file, url
            )
            status = await process.wait()
            if status == 28:
                return self.fail(f"HTTP/2 is stuck on page {page}")
            if status:
                self.counts["broken over HTTP/2"] += 1
                continue
            try:
                self.check(page, floor, Head(head_file.read_bytes().split(b"\r\n\r\n")[0]), data_file.read_bytes(), "HTTP/2")
                self.counts["http2"] += 1
            except Failure as failure:
                return self.fail(str(failure))
            await asyncio.sleep(0.02)

    async def socket(self, which):
        """Messages that come back as they went, as long as the edge lives that has them."""
        chance = random.Random(self.options.seed * 2000 + which)
        while not self.over:
            edge = self.edges[which % 2]
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", edge.listener)
                key = base64.b64encode(chance.randbytes(16)).decode()
                writer.write(
                    f"GET /rt/room{which} HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
                )
                head = await asyncio.wait_for(read_head(reader), STUCK)
                if head.first[1] != "101":
                    raise Failure(f"a socket is answered {head.first}")
                while not self.over:
                    text, mask = chance.randbytes(chance.randrange(1, 100)), chance.randbytes(4)
                    masked = bytes(b ^ mask[i % 4] for i, b in enumerate(text))
                    writer.write(struct.pack("!BB4s", 0x82, 0x80 | len(text), mask) + masked)
                    _, length = struct.unpack("!BB", await asyncio.wait_for(reader.readexactly(2), STUCK))
                    if await asyncio.wait_for(reader.readexactly(length), STUCK) != text:
                        raise Failure("a socket echoes something else")
                    self.counts["messages"] += 1
                    await asyncio.sleep(0.02)
                writer.close()
            except TimeoutError:
                return self.fail("a socket is stuck")
            except (OSError, asyncio.IncompleteReadError) as error:
                if which % 2 == 0 and not self.over:
                    return self.fail(f"a socket of the edge that lives broke: {error!r}")
                await asyncio.sleep(0.05)
            except Failure as failure:
                return self.fail(str(failure))

    async def publish(self):
        """Changes pages, and says so until every node that lives has heard it."""
        while not self.over:
            page = min(self.random.randrange(PAGES), self.random.randrange(PAGES))
            self.origin.versions[page] += 1
            version = self.origin.versions[page]
            order = self.random.choice(({"urls": [f"http://a.test{path(page)}"]}, {"surrogate_keys": [f"page-{page}"]}, {"prefixes": [f"http://a.test{path(page)}"]}))
            order |= {"wait": True, "timeout": "5s"}
            begun = time.monotonic()
            while not self.over:
                try:
                    edge = self.edges[self.random.randrange(2)]
                    _, data = await self.ask(edge.admin, "POST", "/purge", "Content-Type: application/json\r\n", json.dumps(order).encode())
                    if json.loads(data).get("complete"):
                        self.floors[page] = version
                        self.counts["purges"] += 1
                        break
                except (OSError, asyncio.IncompleteReadError):
                    pass
                if time.monotonic() - begun > 2 * STUCK:
                    return self.fail(f"a purge of page {page} is not acknowledged")
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.05)

    async def trouble(self):
        """Takes away one thing after another, and gives it back."""
        pause = max(3.0, min(30.0, self.options.seconds / 8))
        while not self.over:
            await asyncio.sleep(pause)
            if self.over:
                return
            what = self.random.choice(("edge", "edge", "redis"))
            self.counts[f"{what} killed"] += 1
            if self.edges[1].has_ended():
                return self.fail("an edge has ended by itself")
            try:
                if what == "edge":
                    self.edges[1].end()
                    await asyncio.sleep(self.random.random())
                    self.edges[1].start()
                    await self.ready(self.edges[1])
                else:
                    self.redis.end()
                    await asyncio.sleep(self.random.random() * 3)
                    self.redis.start()
            except Failure as failure:
                return self.fail(str(failure))

    async def weigh(self):
        sizes = []
        while not self.over:
            sizes.append((time.monotonic(), self.edges[0].rss()))
            await asyncio.sleep(1)
        self.sizes = sizes

    async def run(self):
        try:
            await self.live()
        finally:
            for process in (*self.edges, self.redis):
                process.end()

    async def live(self):
        await self.set_up()
        tasks = [self.read(i) for i in range(READERS)] + [self.socket(i) for i in range(SOCKETS)]
        tasks += [self.read_by_http2(i) for i in range(2)] + [self.publish(), self.trouble(), self.weigh()]
        tasks = [asyncio.create_task(task) for task in tasks]
        ends = time.monotonic() + self.options.seconds
        while time.monotonic() < ends and not self.over:
            await asyncio.sleep(0.2)
        self.over = True
        for task in tasks:
            await task
        _, metrics = await self.ask(self.edges[0].admin, "GET", "/metrics")
        lane = [line for line in metrics.decode().splitlines() if line.startswith("edge_lane_requests_total{")]
        self.counts["lane"] = sum(int(float(line.split()[-1])) for line in lane)
        for edge in self.edges:
            if status := await edge.leave():
                self.fail(f"an edge that was to end ended with status {status}")

    def memory(self):
        """Has the edge that lives grown? The first third is for filling up."""
        begun, sizes = self.sizes[0][0], self.sizes
        length = sizes[-1][0] - begun
        part = lambda low, high: max((size for at, size in sizes if low * length <= at - begun <= high * length), default=0)
        middle, late = part(0.33, 0.66), part(0.66, 1.0)
        print(f"      memory of the edge that lived: {middle >> 20} MiB at most in the second third, {late >> 20} MiB in the last", file=sys.stderr)
        return late <= middle * 1.1 + (16 << 20)


CONFIG = """version: 1
node: {{ id: {name} }}
server: {{ workers: 2, listeners: [ {{ address: "127.0.0.1:{listener}" }} ] }}
admin: {{ address: "127.0.0.1:{admin}", ready: {{ require: [] }} }}
redis: {{ url: "redis://127.0.0.1:{redis}", timeout: 500ms }}
fleet: {{ lease: 2s, when_cut_off: revalidate }}
store: {{ memory: {{ size: 32MiB }}, disk: {{ path: "{folder}/cache-{name}", size: 256MiB }} }}
cache:
  pages: {{ stale_while_revalidate: 1s, stale_if_error: 1h, slice: 1MiB }}
  texts: {{ extends: pages, compress: {{ prefer: [ gzip ], min_size: 100 }} }}
upstreams:
  origin: {{ peers: [ "127.0.0.1:{origin}" ], retries: {{ max: 1 }} }}
routes:
  - {{ name: rooms, match: {{ path: "/rt/{{room}}" }}, upstream: origin, sticky: {{ by: [ path.room ] }}, websocket: {{}} }}
  - {{ name: texts, match: {{ path: "/t/{{*rest}}" }}, upstream: origin, cache: texts }}
  - {{ name: pages, match: {{ path: "/{{*rest}}" }}, upstream: origin, cache: pages }}
log: {{ level: warn, access: {{ to: none }} }}
"""


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--edge", required=True)
    arguments.add_argument("--seconds", type=float, required=True)
    arguments.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    arguments.add_argument("--rss-after", type=float, default=300, help="runs shorter than this say nothing about growth")
    options = arguments.parse_args()
    print(f"      seed {options.seed}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        world = World(options, pathlib.Path(folder))
        try:
            asyncio.run(world.run())
        except Failure as failure:
            world.fail(str(failure))
        if world.failures:
            for log in sorted(pathlib.Path(folder).glob("*.log")):
                print(f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-15:], sep="\n", file=sys.stderr)
        counts = world.counts
        print(f"      {dict(sorted(counts.items()))}, {world.origin.asked} requests reached the origin, {world.origin.cut} of them were cut off", file=sys.stderr)
        checks = [
            ("every answer was exact and none older than an acknowledged purge", not world.failures),
            ("there were hits, sockets, HTTP/2, purges, copies in gzip and the lane to look at", all(counts[name] for name in ("hit", "messages", "http2", "purges", "gzip", "lane"))),
        ]
        if options.seconds >= options.rss_after:
            checks.append(("the memory of the edge that lived did not grow", world.memory()))
    for sentence, holds in checks:
        print(f"{'ok  ' if holds else 'FAIL'}  {sentence}", file=sys.stderr)
    failed = sum(not holds for _, holds in checks)
    print(f"{len(checks) - failed} passed, {failed} failed")
    sys.exit(bool(failed))


main()
