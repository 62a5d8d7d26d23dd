#!/usr/bin/env python3
"""Every page and picture of the Debian handbook, fetched twice through the edge: handbook.py EDGE_URL ORIGIN_URL

Walks the imported course at the origin, then fetches all of it through the edge: the bytes are the origin's, and the second
time every answer is a hit.
"""
import html
import http.client
import re
import sys
import urllib.parse

COURSE_SLUG = "debian-handbook"
RESPONSES_MAX = 2_000  # a walk that finds more has left the course


class Client:
    """One kept-alive connection; a path in, (status, fields, body) out."""

    def __init__(self, url: str):
        self.connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=20)

    def get(self, path: str):
        self.connection.request("GET", path)
        response = self.connection.getresponse()
        return response.status, response.headers, response.read()


def walk(origin: Client) -> dict[str, bytes]:
    """Every page and picture of the course, by path, as the origin serves it."""
    found, todo = {}, [f"/courses/{COURSE_SLUG}"]
    while todo:
        path = todo.pop()
        if path in found:
            continue
        status, fields, body = origin.get(path)
        if status != 200:
            sys.exit(f"the origin answers {status} for {path}")
        found[path] = body
        if len(found) > RESPONSES_MAX:
            sys.exit(f"more than {RESPONSES_MAX} responses: the walk has left the course")
        if fields.get_content_type() == "text/html":
            for link in re.findall(r"""(?:href|src)=["']([^"'#]+)""", body.decode()):
                target = urllib.parse.urlsplit(urllib.parse.urljoin(path, html.unescape(link)))
                if not target.netloc and re.match(rf"/courses/{COURSE_SLUG}(/|$)|/media/", target.path):
                    todo.append(target.path)
    return found


def fetch(edge_url: str, origin_url: str) -> int:
    expected = walk(Client(origin_url))
    pages = sum(1 for path in expected if path.startswith("/courses/"))
    print(f"{pages} pages and {len(expected) - pages} files, {sum(map(len, expected.values())) / 1e6:.1f} MB")
    edge, passed, failed = Client(edge_url), 0, 0
    for turn in ("first", "second"):
        for path, bytes_of_origin in expected.items():
            status, fields, body = edge.get(path)
            cache_status = fields.get("Cache-Status", "")
            problem = None
            if status != 200:
                problem = f"status {status}"
            elif body != bytes_of_origin:
                problem = f"{len(body)} bytes that are not the origin's {len(bytes_of_origin)}"
            elif turn == "second" and not re.match(r"eduham-edge; hit; ttl=\d+", cache_status):
                problem = f"no hit: {cache_status}"
            if problem:
                failed += 1
                print(f"FAIL  {turn} fetch of {path}: {problem}")
            else:
                passed += 1
    if pages < 100:
        failed += 1
        print(f"FAIL  the handbook has more than 100 pages, but {pages} were found")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(fetch(sys.argv[1], sys.argv[2]))
