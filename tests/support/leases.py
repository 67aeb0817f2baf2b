from ports.memory import Memory


def lease(memory: Memory, seconds: int = 33) -> str:
    """Have Memory admit, as the end of a rebuild does; the era that begins."""
    era = memory.begin_rebuild(10)
    assert era
    assert memory.create_lease(seconds, era, "2026-01-01T00:00:00.000000Z")
    return era
