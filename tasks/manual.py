"""What people must know of a runbook; ``ggen docs`` renders it."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from governor.slo.objective import Objective


@dataclass(frozen=True, slots=True)
class Door:
    """Where a runbook's runs are started, as its diagram draws it.

    ``wrong`` is what is refused there, and how; ``well`` and ``badly`` are what the asker hears.
    """

    asker: str
    at: str
    asks: str
    wrong: tuple[str, str]
    well: str
    badly: str


@dataclass(frozen=True, slots=True)
class Manual:
    """What people must know of a runbook besides its steps.

    ``refusals`` are pairs of a cause and what comes of it; ``slis`` are its objectives.
    ``door`` and the steps draw the diagram, unless ``sequence`` has its lines (Mermaid).
    ``refused_with`` is the receipt of a run that was undone, or, where ``is_one_way``, of one that
    cannot go on for now.
    """

    number: int
    title: str
    purpose: str
    trigger: str
    inputs: type[BaseModel]
    outputs: Sequence[str]
    refusals: Sequence[tuple[str, str]]
    slis: Sequence[Objective]
    receipts: Sequence[str]
    sequence: Sequence[str] = ()
    door: Door | None = None
    refused_with: str = ""
    is_one_way: bool = False
