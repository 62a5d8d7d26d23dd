"""No case may be worse through the edge than without it: autobahn.py [--worse] ROUND..., folders with reports in direct/ and edge/.

Some cases race: whether an echo is ahead of the close that a bad frame calls for is up to the scheduler, with and without an edge.
So a case passes if any round shows it no worse. --worse only names those that do not pass yet."""

import json
import sys

RANKS = ["OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED", "UNCLEAN", "WRONG CODE", "FAILED BY CLIENT", "FAILED"]


def cases(folder):
    with open(f"{folder}/index.json") as file:
        (results,) = json.load(file).values()
    return results


def rank(result):
    known = [RANKS.index(word) if word in RANKS else len(RANKS) for word in (result["behavior"], result["behaviorClose"])]
    return tuple(known)


only_worse = sys.argv[1] == "--worse"
passed, worse = set(), {}
for folder in sys.argv[2:] if only_worse else sys.argv[1:]:
    edge = cases(f"{folder}/edge")
    for case, alone in cases(f"{folder}/direct").items():
        through = edge.get(case, {"behavior": "missing", "behaviorClose": "missing"})
        if all(a >= b for a, b in zip(rank(alone), rank(through))):
            passed.add(case)
        else:
            words = [f"{name} {result['behavior']}/{result['behaviorClose']}" for name, result in (("directly", alone), ("through the edge", through))]
            worse[case] = ", ".join(words)
failed = sorted(worse.keys() - passed)
if only_worse:
    print(*failed)
    sys.exit()
for case in failed:
    print(f"FAIL  {case}: {worse[case]}", file=sys.stderr)
if not passed and not failed:
    print("FAIL  no case was run", file=sys.stderr)
print(f"{len(passed)} passed, {len(failed)} failed")
sys.exit(bool(failed) or not passed)
