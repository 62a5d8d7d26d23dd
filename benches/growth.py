#!/usr/bin/env python3
"""What a hit of 1 KiB costs with many stored responses, routes and purges, and what memory a stored response takes.

  growth.py [--seconds 3] [--most 1000000] [--routes 9999] [--purges 100000] [--edge PATH]

Measured as in compare.py, with keys picked at random: with more of them than the processor's cache holds, each is a miss there.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

from compare import HERE, LOAD_CORE, PROXY_CORE, Server, free_port, render

BODY = 1024
# Rounds of 2 s in a row that may store nothing new, before what is asked for is said not to fit into memory.
IDLE_ROUNDS_MAX = 5
# A server that needs no more of a processor than this in a second is at rest; one that is not after so many seconds never will be.
AT_REST = 0.05
AT_REST_SECONDS_MAX = 300
FILL = """
local from, to = tonumber(os.getenv("FROM")), tonumber(os.getenv("TO"))
local at = from
request = function()
    at = at + 1
    if at > to then at = from + 1 end
    return wrk.format("GET", "/fill/" .. at)
end
"""
READ = """
local to = tonumber(os.getenv("TO"))
request = function() return wrk.format("GET", "/fill/" .. math.random(to)) end
"""


def wrk(script: pathlib.Path, port: int, seconds: int, path: str = "/", **environment) -> int:
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", "-c64", f"-d{seconds}s", "-s", script, f"http://127.0.0.1:{port}{path}"]
    environment = {name: str(value) for name, value in environment.items()}
    out = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment}).stdout
    if problem := re.search(r"Non-2xx.*|Socket errors.*", out):
        sys.exit(problem.group())
    return int(re.search(r"(\d+) requests in", out).group(1))


def metric(admin: int, name: str) -> float:
    text = urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics").read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


def rss(server: Server) -> int:
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) * 1024


class Bench:
    def __init__(self, directory: pathlib.Path, edge: str, origin: int, seconds: int, routes: int = 0):
        self.seconds, self.directory = seconds, directory
        self.port, self.admin = free_port(), free_port()
        config = pathlib.Path(render("growth.yaml", directory, origin=origin, port=self.port, admin=self.admin))
        many = "".join(f'  - {{ name: r{n}, match: {{ path: "/r{n}/{{*rest}}" }}, upstream: origin, cache: hits }}\n' for n in range(routes))
        config.write_text(config.read_text().replace("routes:\n", "routes:\n" + many))
        self.server = Server([edge, "run", "-c", str(config)], PROXY_CORE, f"http://127.0.0.1:{self.port}/fill/1")
        self.fill_script, self.read_script = directory / "fill.lua", directory / "read.lua"
        self.fill_script.write_text(FILL)
        self.read_script.write_text(READ)

    def fill(self, count: int):
        most, idle = -1, 0
        while (stored := int(metric(self.admin, 'edge_cache_stored_responses{tier="memory"}'))) < count:
            most, idle = max(most, stored), 0 if stored > most else idle + 1
            if idle == IDLE_ROUNDS_MAX:
                sys.exit(f"{stored} of {count} are stored and no more will be: see store.memory in conf/growth.yaml")
            wrk(self.fill_script, self.port, 2, FROM=max(stored - 64, 0), TO=count)

    def cost(self, count: int) -> float:
        wrk(self.read_script, self.port, 1, TO=count)
        cpu, misses = self.server.cpu_seconds(), metric(self.admin, 'edge_cache_requests_total{result="miss"')
        requests = wrk(self.read_script, self.port, self.seconds, TO=count)
        cpu = self.server.cpu_seconds() - cpu
        if missed := metric(self.admin, 'edge_cache_requests_total{result="miss"') - misses:
            print(f"  ({missed:.0f} of {requests} were no hits)")
        return cpu * 1e6 / requests

    def purge(self, count: int):
        for first in range(0, count, 1_000):
            body = json.dumps({"urls": [f"http://purged.test/{n}" for n in range(first, first + 1_000)]}).encode()
            request = urllib.request.Request(f"http://127.0.0.1:{self.admin}/purge", body, {"Content-Type": "application/json"})
            urllib.request.urlopen(request).read()

    def at_rest(self) -> float:
        """Waits until what purges took is cleared away; gives the seconds of processor time that it cost."""
        before = last = self.server.cpu_seconds()
        for _ in range(AT_REST_SECONDS_MAX):
            time.sleep(1)
            now = self.server.cpu_seconds()
            if now - last < AT_REST:
                return now - before
            last = now
        sys.exit(f"the server still works {AT_REST_SECONDS_MAX} s after the purges; see what it does in its own metrics")


def main():
    target_directory = os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target")
    arguments = argparse.ArgumentParser(description="what a hit costs as everything grows")
    arguments.add_argument("--seconds", type=int, default=3)
    arguments.add_argument("--most", type=int, default=1_000_000)
    arguments.add_argument("--routes", type=int, default=9_999, help="beside the one that is read; the configuration takes 10,000")
    arguments.add_argument("--purges", type=int, default=100_000)
    arguments.add_argument("--edge", default=f"{target_directory}/release/eduham-edge")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="eduham-growth-") as temporary:
        directory = pathlib.Path(temporary)
        origin_port = free_port()
        command = ["nginx", "-p", temporary, "-c", render("growth.nginx.conf", directory, origin=origin_port, body="x" * BODY)]
        origin = Server(command, LOAD_CORE, f"http://127.0.0.1:{origin_port}/fill/1")
        try:
            bench = Bench(directory, options.edge, origin_port, options.seconds)
            try:
                count, before = 1_000, None
                while count <= options.most:
                    bench.fill(count)
                    memory = rss(bench.server)
                    each = f"{(memory - before[1]) / (count - before[0]) - BODY:6.0f} B each beyond its body" if before else ""
                    before = (count, memory)
                    print(f"{count:>9} stored    {bench.cost(count):6.1f} us   RSS {memory / 2**20:6.0f} MiB {each}", flush=True)
                    count *= 10
                few = f"{bench.cost(1_000):6.1f} us"
                bench.purge(options.purges)
                cleared = f"{bench.at_rest():.1f} s to clear away behind"
                print(f"{options.purges:>9} purges    {bench.cost(1_000):6.1f} us, 1,000 keys read; {few} before; {cleared}", flush=True)
            finally:
                bench.server.stop()
            bench = Bench(directory, options.edge, origin_port, options.seconds, options.routes)
            try:
                bench.fill(1_000)
                print(f"{options.routes:>9} routes    {bench.cost(1_000):6.1f} us, 1,000 stored", flush=True)
            finally:
                bench.server.stop()
        finally:
            origin.stop()


if __name__ == "__main__":
    main()
