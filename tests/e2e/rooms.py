#!/usr/bin/env python3
"""Unmodified y-websocket clients in many rooms through the edge, one collaboration node killed under them.

  rooms.py storm EDGE_URL PID REPORT     200 sockets in 20 rooms; the node with PID is killed while they edit; REPORT is written
  rooms.py fresh EDGE_URL REPORT         every edit that was seen is in documents that clients without any state load
"""
import json
import os
import pathlib
import signal
import subprocess
import sys

CLIENTS, ROOMS = 200, 20
STORM = pathlib.Path(__file__).parent.parent / "clients"

results = {True: 0, False: 0}


def check(sentence: str, holds: bool, detail: object = ""):
    results[bool(holds)] += 1
    print(f"{'ok  ' if holds else 'FAIL'}  {sentence}" + ("" if holds else f": {detail}"), flush=True)


class Storm:
    """The clients, in a process of their own that is told by JSON lines what to do."""

    def __init__(self, url: str):
        command = ["node", "storm.mjs", str(CLIENTS), str(ROOMS), "storm-", url]
        self.process = subprocess.Popen(command, cwd=STORM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tell(self, what: str, **arguments) -> dict:
        self.process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        check(f"the clients can {what}", "error" not in answer, answer.get("error"))
        return answer


def storm(url: str, victim: int, report_file: str):
    clients = Storm(url)
    nodes = clients.tell("connect")["nodes"]
    check("rooms are spread over both nodes", set(nodes.values()) == {"c1", "c2"}, nodes)
    clients.tell("edit", each=2)
    clients.tell("wait-seen")
    before = clients.tell("sockets")
    check(f"{CLIENTS} sockets are open", before["open"] == CLIENTS, before)
    clients.tell("edit", each=1)
    os.kill(victim, signal.SIGKILL)
    clients.tell("edit", each=1)
    clients.tell("wait-converged", seconds=90)
    after = clients.tell("sockets")
    check(f"{CLIENTS} sockets are open again, by themselves", after["open"] == CLIENTS, after)
    clients.tell("edit", each=1)
    clients.tell("wait-seen")
    clients.tell("wait-converged")
    rooms = clients.tell("report")["rooms"]
    check("every room is on the other node", {room["node"] for room in rooms.values()} == {"c2"}, nodes)
    missing = {name: room["missing"] for name, room in rooms.items() if room["missing"]}
    check("every edit that a second client had seen is in every client", not missing, missing)
    pathlib.Path(report_file).write_text(json.dumps(rooms))
    clients.tell("stop")
    clients.process.wait(30)


def fresh(url: str, report_file: str):
    rooms = json.loads(pathlib.Path(report_file).read_text())
    lost = {}
    for name, room in rooms.items():
        loaded = subprocess.run(["node", "fresh.mjs", url, name], cwd=STORM, capture_output=True, text=True, timeout=60)
        lost[name] = [token for token in room["seen"] if token not in loaded.stdout] or loaded.stderr
    seen = sum(len(room["seen"]) for room in rooms.values())
    lost = {name: what for name, what in lost.items() if what}
    check(f"all {seen} edits that were seen are in documents loaded freshly from the database", seen >= CLIENTS and not lost, lost)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["storm", url, victim, report]:
            storm(url, int(victim), report)
        case ["fresh", url, report]:
            fresh(url, report)
        case _:
            sys.exit(__doc__)
    print(f"{results[True]} passed, {results[False]} failed")
    sys.exit(1 if results[False] else 0)
