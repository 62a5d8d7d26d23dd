#!/usr/bin/env python3
"""Processor microseconds per request of the edge, beside nginx, HAProxy and Varnish doing the same work.

  compare.py [--seconds 4] [--rounds 3] [--only ROW] [--edge PATH] [--json FILE]

One contestant runs at a time on core 0 with one worker; the origin and the load generator share core 1. The generator is wrk with
64 keep-alive connections, over TLS too, and h2load with 16 connections of 8 streams. `floor` is a relay that looks at nothing:
what it costs to receive twice and send twice. The figure is (user + system time of the contestant's process) / requests, which stays comparable when the
machine is noisy. Runs take turns (A B C A B C ..); medians are compared. No contestant writes an access log.
"""
import argparse
import dataclasses
import json
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).parent
PROXY_CORE, LOAD_CORE = "0", "1"
CONNECTIONS = 64
FEW = 8  # where an answer takes so long that 64 side by side would not end within a short run
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    path: str
    against: tuple[str, ...]  # whose best figure the target is measured by
    target: float  # at most this share of it
    contestants: tuple[str, ...] = ("edge", "nginx", "haproxy")
    protocol: str = "h1"  # h1, tls-h1 or tls-h2
    connections: int = CONNECTIONS


CONTESTANTS = ("edge", "nginx", "haproxy", "varnish", "floor")
CLEAR = ("edge", "nginx", "haproxy", "varnish")
ROWS = [
    Row("pass-through, 5 bytes", "/pass/5", ("nginx",), target=0.8, contestants=CONTESTANTS),
    Row("pass, the same work", "/same/5", ("nginx",), target=0.8),
    Row("hit, 1 KiB", "/hit/1k", ("haproxy",), target=0.85, contestants=CLEAR),
    Row("hit, 100 KiB", "/hit/100k", ("nginx", "haproxy", "varnish"), target=0.8, contestants=CLEAR),
    Row("hit, 10 MiB", "/hit/10m", ("varnish",), target=1.0, contestants=CLEAR, connections=FEW),
    Row("hit, 1 KiB, TLS 1.3", "/hit/1k", ("haproxy",), target=0.75, protocol="tls-h1"),
    Row("hit, 1 KiB, TLS, h2", "/hit/1k", ("nginx",), target=0.8, protocol="tls-h2"),
    Row("hit, 100 KiB, TLS, h2", "/hit/100k", ("haproxy",), target=1.0, protocol="tls-h2"),
    Row("hit, 10 MiB, TLS 1.3", "/hit/10m", ("nginx",), target=0.8, protocol="tls-h1", connections=FEW),
]
BODIES = {"1k": 1024, "100k": 100 * 1024, "10m": 10 * 1024 * 1024}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


class Server:
    """A process pinned to a core, made from a template of conf/, and ended by its pid."""

    def __init__(self, command: list[str], core: str, ready: str):
        self.process = subprocess.Popen(["taskset", "-c", core, *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 15
        while True:
            try:
                urllib.request.urlopen(ready, timeout=2).read()
                return
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    sys.exit(f"{command[0]} did not come up: {error}")
                time.sleep(0.05)

    def cpu_seconds(self) -> float:
        """Of the process and its children: Varnish works in one."""
        fields = {pid: text.rpartition(")")[2].split() for pid, text in stats()}
        family, ticks = [self.process.pid], 0
        for pid in family:
            ticks += int(fields[pid][11]) + int(fields[pid][12])
            family += [child for child, stat in fields.items() if int(stat[1]) == pid]
        return ticks / TICKS_PER_SECOND

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def stats():
    """The pid of each process, and what /proc says of it."""
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue  # it has ended
        yield int(path.parent.name), text


def render(name: str, directory: pathlib.Path, **values) -> str:
    text = (HERE / "conf" / name).read_text()
    for key, value in {"dir": directory, **values}.items():
        text = text.replace(f"@{key}@", str(value))
    assert not (left := re.search(r"@\w+@", text)), f"{name}: {left.group()} has no value"
    path = directory / name
    path.write_text(text)
    return str(path)


def contestant_command(name: str, directory: pathlib.Path, edge: str, origin: int, port: int, tls: int) -> list[str]:
    if name == "floor":
        return [str(directory / "floor"), str(port), str(origin)]
    if name == "varnish":
        options = ["-p", "thread_pools=1", "-p", "thread_pool_min=80", "-s", "malloc,256m"]
        vcl = render("varnish.vcl", directory, origin=origin)
        return ["varnishd", "-F", "-j", "none", "-a", f"127.0.0.1:{port}", "-f", vcl, "-n", str(directory / "varnish"), *options]
    ports = {"origin": origin, "port": port, "tls": tls}
    if name == "edge":
        return [edge, "run", "-c", render("edge.yaml", directory, admin=free_port(), **ports)]
    if name == "nginx":
        return ["nginx", "-p", str(directory), "-c", render("nginx.conf", directory, **ports)]
    return ["haproxy", "-db", "-q", "-f", render("haproxy.cfg", directory, **ports)]


def certificate(directory: pathlib.Path):
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    request += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*request, "-keyout", directory / "key.pem", "-out", directory / "cert.pem"], check=True, capture_output=True)
    (directory / "both.pem").write_bytes((directory / "cert.pem").read_bytes() + (directory / "key.pem").read_bytes())


def load_h2(url: str, seconds: int, _connections: int) -> int:
    command = ["taskset", "-c", LOAD_CORE, "h2load", "-t1", "-c16", "-m8", "-D", str(seconds), url]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    succeeded, failed = map(int, re.search(r"(\d+) succeeded, (\d+) failed", out).groups())
    if failed or not succeeded:
        sys.exit(f"{url}: {failed} requests failed, {succeeded} did not")
    return succeeded


def load(url: str, seconds: int, connections: int) -> int:
    """Runs wrk and returns how many requests it completed; anything but 2xx answers ends the comparison."""
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", url]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if problem := re.search(r"Non-2xx.*|Socket errors.*", out):
        sys.exit(f"{url}: {problem.group()}")
    return int(re.search(r"(\d+) requests in", out).group(1))


def measure(server: Server, row: Row, port: int, tls: int, seconds: int) -> tuple[float, float]:
    """(processor microseconds per request, requests per second)"""
    run = load_h2 if row.protocol == "tls-h2" else load
    scheme, port = ("http", port) if row.protocol == "h1" else ("https", tls)
    url = f"{scheme}://127.0.0.1:{port}{row.path}"
    run(url, 1, row.connections)
    cpu, wall = server.cpu_seconds(), time.monotonic()
    requests = run(url, seconds, row.connections)
    wall = time.monotonic() - wall
    return (server.cpu_seconds() - cpu) * 1e6 / requests, requests / wall


def main():
    target_directory = os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target")
    arguments = argparse.ArgumentParser(description="processor time per request beside nginx, HAProxy and Varnish")
    arguments.add_argument("--seconds", type=int, default=4)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--only", help="rows whose name contains this")
    arguments.add_argument("--edge", default=f"{target_directory}/release/eduham-edge")
    arguments.add_argument("--json", help="write the figures here, too")
    options = arguments.parse_args()
    if os.cpu_count() < 2:
        sys.exit("two cores are needed: one for the contestant, one for the load")
    rows = [row for row in ROWS if not options.only or options.only in row.name]
    figures = {row.name: {name: [] for name in row.contestants} for row in rows}
    contestants = [name for name in CONTESTANTS if any(name in row.contestants for row in rows)]

    with tempfile.TemporaryDirectory(prefix="eduham-bench-") as temporary:
        directory = pathlib.Path(temporary)
        (directory / "www" / "hit").mkdir(parents=True)
        for name, size in BODIES.items():
            (directory / "www" / "hit" / name).write_bytes(b"x" * size)
        certificate(directory)
        subprocess.run(["gcc", "-O2", "-o", directory / "floor", HERE / "floor.c"], check=True)
        origin_port = free_port()
        origin_command = ["nginx", "-p", str(directory), "-c", render("origin.nginx.conf", directory, origin=origin_port)]
        origin = Server(origin_command, LOAD_CORE, f"http://127.0.0.1:{origin_port}/pass/5")
        try:
            for turn in range(options.rounds):
                for name in contestants:
                    port, tls = free_port(), free_port()
                    command = contestant_command(name, directory, options.edge, origin_port, port, tls)
                    server = Server(command, PROXY_CORE, f"http://127.0.0.1:{port}/pass/5")
                    try:
                        for row in (row for row in rows if name in row.contestants):
                            figure = measure(server, row, port, tls, options.seconds)
                            figures[row.name][name].append(figure)
                            print(f"round {turn + 1}  {row.name:24} {name:8} {figure[0]:8.1f} us  {figure[1]:8.0f}/s", file=sys.stderr)
                    finally:
                        server.stop()
        finally:
            origin.stop()

    medians = {row: {name: statistics.median(f[0] for f in runs) for name, runs in by.items()} for row, by in figures.items()}
    print(f"{'processor us per request':26}{''.join(f'{name:>9}' for name in CONTESTANTS)}   ratio")
    for row in rows:
        median = medians[row.name]
        ratio = median["edge"] / min(median[name] for name in row.against)
        verdict = "met" if ratio <= row.target else "NOT met"
        columns = "".join(f"{median[name]:9.1f}" if name in median else f"{'-':>9}" for name in CONTESTANTS)
        print(f"{row.name:26}{columns}   {ratio:.2f} of {' and '.join(row.against)} (target {row.target}: {verdict})")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps({"figures": figures, "medians": medians}, indent=2))


if __name__ == "__main__":
    main()
