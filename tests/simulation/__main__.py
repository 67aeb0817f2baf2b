"""``python -m tests.simulation --seeds 500``: play many worlds; a failing one says how to replay it."""

import argparse
import gc
import logging
import multiprocessing
import os
import sys
import time


def _ready() -> None:
    """Import once, and let only worlds be garbage."""
    import tests.simulation.play  # noqa: F401

    gc.freeze()


def _played(asked: tuple[int, str]) -> tuple[int, str, int]:
    from tests.simulation.play import Play

    logging.disable(logging.CRITICAL)
    seed, bug = asked
    play = Play(seed, bug)
    try:
        broken = play.run()
    except Exception as error:
        import traceback

        broken = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
    return seed, broken, play.world.steps


def _replayed(seed: int, bug: str) -> int:
    from tests.simulation.play import Play

    logging.disable(logging.CRITICAL)
    play = Play(seed, bug)
    broken = play.run()
    print("\n".join(play.world.log))
    print(f"seed {seed}: {play.world.steps} steps: {broken or 'all holds'}")
    return 1 if broken else 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make simulate")
    parser.add_argument("--seeds", type=int, default=500, help="how many worlds")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seed", type=int, help="replay this one, and show what happened")
    parser.add_argument("--bug", default="", help="put this bug of the past back")
    parser.add_argument("--stop", action="store_true", help="stop at the first that fails")
    asked = parser.parse_args()
    if asked.seed is not None:
        return _replayed(asked.seed, asked.bug)
    began_s, steps, failed = time.monotonic(), 0, 0
    seeds = [(asked.first + n, asked.bug) for n in range(asked.seeds)]
    with multiprocessing.Pool(os.cpu_count(), _ready) as pool:
        for done, (seed, broken, count) in enumerate(pool.imap_unordered(_played, seeds, 4), 1):
            steps += count
            if broken:
                failed += 1
                print(f"seed {seed}: {broken}\n  replay: make simulate SEED={seed}", flush=True)
                if asked.stop:
                    return 1
            if sys.stderr.isatty():
                print(f"\r{done}/{asked.seeds}", end="", file=sys.stderr)
    took_s = time.monotonic() - began_s
    print(
        f"{asked.seeds} seeds, {failed} failed, {steps} steps in {took_s:.0f} s: {steps / took_s:.0f} a second"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
