"""``python -m tests.fuzz --seconds 300 [--seed 7]``: every parser in turn; 1 where one does wrong."""

import argparse
import secrets
import sys

from tests.fuzz.mutate import fuzz
from tests.fuzz.targets import targets


def main() -> int:
    asked = argparse.ArgumentParser()
    asked.add_argument("--seconds", type=float, default=300)
    asked.add_argument("--seed", type=int, default=secrets.randbits(32))
    given = asked.parse_args()
    each_s, wrong = given.seconds / len(targets()), 0
    for target in targets().values():
        found = {each.error: each for each in fuzz(target, given.seed, times=10**9, seconds=each_s)}
        wrong += len(found)
        for _each in found.values():
            pass
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
