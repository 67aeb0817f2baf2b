"""A machine's wall clock that can be set without touching the machine's own.

A library that is loaded first (``LD_PRELOAD``) adds to what ``clock_gettime`` and ``gettimeofday``
say of the wall clock as many seconds as a file holds, at once in every process that has it. The
kernel's count since the boot stays as it is, as it does where a real clock is set.
"""

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static const volatile long long *set_by;
__attribute__((constructor)) static void find(void) {
  const char *name = getenv("CLOCK_SET_BY");
  int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *found = mmap(0, sizeof *set_by, PROT_READ, MAP_SHARED, file, 0);
  if (found != MAP_FAILED) set_by = found;
  close(file);
}
int clock_gettime(clockid_t id, struct timespec *at) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int done = real(id, at);
  if (id == CLOCK_REALTIME && set_by) at->tv_sec += *set_by;
  return done;
}
int gettimeofday(struct timeval *at, void *zone) {
  static int (*real)(struct timeval *, void *);
  if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
  int done = real(at, zone);
  if (set_by) at->tv_sec += *set_by;
  return done;
}
"""


@dataclass(frozen=True, slots=True)
class WallClock:
    """What processes need in their environment to have it, and its hands."""

    environment: Mapping[str, str]
    hands: Path

    def set_by(self, seconds: int) -> None:
        """Have it differ from the machine's by so much, from now on."""
        with self.hands.open("r+b") as file:
            file.write(struct.pack("q", seconds))


def wall_clock(folder: Path) -> WallClock | None:
    """A clock whose files lie in ``folder``; None where no C compiler is at hand."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    source, library, hands = folder / "clock.c", folder / "clock.so", folder / "set-by"
    source.write_text(_SOURCE)
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    hands.write_bytes(struct.pack("q", 0))
    return WallClock({"LD_PRELOAD": str(library), "CLOCK_SET_BY": str(hands)}, hands)


@contextmanager
def had_by_children(clock: WallClock | None) -> Iterator[None]:
    """Every process that is started meanwhile has it; this one has not."""
    if clock is None:
        yield
        return
    os.environ.update(clock.environment)  # noqa: TID251  # no setting of ours
    try:
        yield
    finally:
        for name in clock.environment:
            del os.environ[name]  # noqa: TID251
