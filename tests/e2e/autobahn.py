"""No case may be worse through the edge than without it: autobahn.py DIRECT EDGE, two folders of reports."""

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


direct, edge = cases(sys.argv[1]), cases(sys.argv[2])
passed = failed = 0
for case, alone in sorted(direct.items()):
    through = edge.get(case, {"behavior": "missing", "behaviorClose": "missing"})
    if all(a >= b for a, b in zip(rank(alone), rank(through))):
        passed += 1
    else:
        failed += 1
        words = [f"{name} {result['behavior']}/{result['behaviorClose']}" for name, result in (("directly", alone), ("through the edge", through))]
        print(f"FAIL  {case}: {', '.join(words)}", file=sys.stderr)
if not direct:
    failed += 1
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
