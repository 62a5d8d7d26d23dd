#!/usr/bin/env python3
"""Processor microseconds per request of the edge, beside nginx and HAProxy doing the same work.

  compare.py [--seconds 4] [--rounds 3] [--only ROW] [--edge PATH] [--json FILE]

One contestant runs at a time on core 0 with one worker; the origin and the load generator (wrk, 64 keep-alive connections)
share core 1. The figure is (user + system time of the contestant's process) / requests, which stays comparable when the
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
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    path: str
    against: tuple[str, ...]  # whose best figure the target is measured by
    target: float  # at most this share of it


CONTESTANTS = ("edge", "nginx", "haproxy")
ROWS = [
    Row("pass-through, 5 bytes", "/pass/5", ("nginx",), target=0.8),
    Row("pass, the same work", "/same/5", ("nginx",), target=0.8),
    Row("hit, 1 KiB", "/hit/1k", ("haproxy",), target=0.85),
    Row("hit, 100 KiB", "/hit/100k", ("nginx", "haproxy"), target=0.8),
]
BODIES = {"1k": 1024, "100k": 100 * 1024}


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
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def render(name: str, directory: pathlib.Path, **values) -> str:
    text = (HERE / "conf" / name).read_text()
    for key, value in {"dir": directory, **values}.items():
        text = text.replace(f"@{key}@", str(value))
    assert not (left := re.search(r"@\w+@", text)), f"{name}: {left.group()} has no value"
    path = directory / name
    path.write_text(text)
    return str(path)


def contestant_command(name: str, directory: pathlib.Path, edge: str, origin: int, port: int) -> list[str]:
    ports = {"origin": origin, "port": port}
    if name == "edge":
        return [edge, "run", "-c", render("edge.yaml", directory, admin=free_port(), **ports)]
    if name == "nginx":
        return ["nginx", "-p", str(directory), "-c", render("nginx.conf", directory, **ports)]
    return ["haproxy", "-db", "-q", "-f", render("haproxy.cfg", directory, **ports)]


def load(url: str, seconds: int) -> int:
    """Runs wrk and returns how many requests it completed; anything but 2xx answers ends the comparison."""
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", url]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if problem := re.search(r"Non-2xx.*|Socket errors.*", out):
        sys.exit(f"{url}: {problem.group()}")
    return int(re.search(r"(\d+) requests in", out).group(1))


def measure(server: Server, url: str, seconds: int) -> tuple[float, float]:
    """(processor microseconds per request, requests per second)"""
    load(url, 1)
    cpu, wall = server.cpu_seconds(), time.monotonic()
    requests = load(url, seconds)
    wall = time.monotonic() - wall
    return (server.cpu_seconds() - cpu) * 1e6 / requests, requests / wall


def main():
    target_directory = os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target")
    arguments = argparse.ArgumentParser(description="processor time per request beside nginx and HAProxy")
    arguments.add_argument("--seconds", type=int, default=4)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--only", help="rows whose name contains this")
    arguments.add_argument("--edge", default=f"{target_directory}/release/eduham-edge")
    arguments.add_argument("--json", help="write the figures here, too")
    options = arguments.parse_args()
    if os.cpu_count() < 2:
        sys.exit("two cores are needed: one for the contestant, one for the load")
    rows = [row for row in ROWS if not options.only or options.only in row.name]
    figures = {row.name: {name: [] for name in CONTESTANTS} for row in rows}

    with tempfile.TemporaryDirectory(prefix="eduham-bench-") as temporary:
        directory = pathlib.Path(temporary)
        (directory / "www" / "hit").mkdir(parents=True)
        for name, size in BODIES.items():
            (directory / "www" / "hit" / name).write_bytes(b"x" * size)
        origin_port = free_port()
        origin_command = ["nginx", "-p", str(directory), "-c", render("origin.nginx.conf", directory, origin=origin_port)]
        origin = Server(origin_command, LOAD_CORE, f"http://127.0.0.1:{origin_port}/pass/5")
        try:
            for turn in range(options.rounds):
                for name in CONTESTANTS:
                    port = free_port()
                    command = contestant_command(name, directory, options.edge, origin_port, port)
                    server = Server(command, PROXY_CORE, f"http://127.0.0.1:{port}/pass/5")
                    try:
                        for row in rows:
                            figure = measure(server, f"http://127.0.0.1:{port}{row.path}", options.seconds)
                            figures[row.name][name].append(figure)
                            print(f"round {turn + 1}  {row.name:24} {name:8} {figure[0]:8.1f} us  {figure[1]:8.0f}/s", file=sys.stderr)
                    finally:
                        server.stop()
        finally:
            origin.stop()

    medians = {row: {name: statistics.median(f[0] for f in runs) for name, runs in by.items()} for row, by in figures.items()}
    print(f"{'processor us per request':26}{'edge':>8}{'nginx':>8}{'haproxy':>8}   ratio")
    for row in rows:
        median = medians[row.name]
        ratio = median["edge"] / min(median[name] for name in row.against)
        verdict = "met" if ratio <= row.target else "NOT met"
        columns = "".join(f"{median[name]:8.1f}" for name in CONTESTANTS)
        print(f"{row.name:26}{columns}   {ratio:.2f} of {' and '.join(row.against)} (target {row.target}: {verdict})")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps({"figures": figures, "medians": medians}, indent=2))


if __name__ == "__main__":
    main()
