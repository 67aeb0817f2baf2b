"""What people must know of a runbook; ``ggen docs`` renders it."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Manual:
    """What people must know of a runbook besides its steps.

    ``refusals`` are pairs of a cause and what comes of it; ``slis`` of a measure and its bar.
    ``sequence`` is a Mermaid diagram's lines, of a runbook whose steps do not draw it.
    """

    number: int
    title: str
    purpose: str
    trigger: str
    inputs: type[BaseModel]
    outputs: Sequence[str]
    refusals: Sequence[tuple[str, str]]
    slis: Sequence[tuple[str, str]]
    receipts: Sequence[str]
    sequence: Sequence[str] = ()
