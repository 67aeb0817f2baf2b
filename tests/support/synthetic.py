"""A runbook with every kind of step, so that the engine is proved once for all runbooks."""

from functools import cache

from governor.records import AccountId, Record
from governor.runs import Effect, JournalEntry, Run, StepResult, Trigger, Wait
from ports import Ports
from ports.documents import Create, Delete, Query, Update, Where, Write
from tasks.manual import Manual
from tasks.receipts.commit import commit_once, receipt
from tasks.runs import intake, waits
from tasks.runs.definition import Chunk, Result, Runbook, Runbooks, Step

ACCOUNT = "acme"
CHUNK = 2


class Inputs(Record):
    """What a synthetic run is started with."""

    account_id: AccountId
    children: int = 2


class Chosen(StepResult):
    """What the first step chose."""

    step = "synthetic.choose"

    name: str


def _choose(_ports: Ports, run: Run) -> Result:
    return Result(Chosen(name=f"made/{run.run_id}"))


def _look_made(ports: Ports, run: Run) -> dict[str, Effect]:
    found = ports.documents.get(Chosen.of(run).name)
    return {"made": Effect.CREATE if found is None else Effect.KEEP}


def _make(ports: Ports, run: Run) -> Result:
    name = Chosen.of(run).name
    is_made = ports.documents.get(name) is not None
    return Result(writes=[] if is_made else [Create(name, {"by": run.maker})])


def _unmake(ports: Ports, run: Run, _entry: JournalEntry) -> None:
    found = ports.documents.get(Chosen.of(run).name)
    if found and found.data["by"] == run.maker:
        commit_once(ports, [Delete(found.path, found.revision)])


def _look_topic(ports: Ports, run: Run) -> dict[str, Effect]:
    topic = ports.signals.look(run.account_id, "us-central1")
    return {"topic": Effect.CREATE if topic == "absent" else Effect.KEEP}


def _make_topic(ports: Ports, run: Run) -> Result:
    ports.signals.create(run.account_id, "us-central1")
    return Result()


def _unmake_topic(ports: Ports, run: Run, entry: JournalEntry) -> None:
    if entry.made("topic"):
        ports.signals.delete(run.account_id)


def gate(ports: Ports, run: Run) -> Wait | None:
    is_open = ports.documents.get(f"gates/{run.run_id}") is not None
    return None if is_open else Wait(reason="the gate is closed")


def each(ports: Ports, run: Run, cursor: str) -> Chunk:
    after = ("", cursor) if cursor else None
    page = ports.documents.scan(Query("members", after=after, limit=CHUNK))
    writes: list[Write] = [
        Update(d.path, {"count": d.data["count"] + 1, "by": run.maker}, d.revision) for d in page
    ]
    return Chunk(page[-1].path if len(page) == CHUNK else None, len(page), writes)


def _undo_each(ports: Ports, run: Run, _cursor: str) -> Chunk:
    mine = [Where("by", "==", run.maker)]
    page = ports.documents.scan(Query("members", where=mine, limit=CHUNK))
    writes: list[Write] = [
        Update(d.path, {"count": d.data["count"] - 1, "by": ""}, d.revision) for d in page
    ]
    return Chunk("more" if len(page) == CHUNK else None, len(page), writes)


def _start_children(ports: Ports, run: Run) -> Result:
    inputs = Inputs.stored(run.inputs)
    return Result(children=[child(ports, run, n) for n in range(inputs.children)])


def child(ports: Ports, run: Run, number: int) -> Run:
    return intake.new_run(
        ports,
        CHILD,
        {"account_id": run.account_id},
        account_id=run.account_id,
        trigger=Trigger.PARENT,
        dedupe_key=f"{run.maker}/{number}",
        parent=run.run_id,
    )


def _cancel_children(ports: Ports, run: Run, _entry: JournalEntry) -> None:
    waits.cancel_children(ports, run, "the run that started it is undone")


def _told(ports: Ports, run: Run, code: str) -> Create:
    return receipt(
        ports,
        "compensation_failed",
        run.account_id,
        run.run_id,
        attempt=run.attempt,
        status="failed",
        run_id=run.run_id,
        failed_step=code,
        error_code=code,
        error_sha256="0" * 64,
    )


def _manual(title: str) -> Manual:
    return Manual(0, title, "", "", Inputs, (), (), (), ())


def _runbook(name: str, steps: tuple[Step, ...]) -> Runbook:
    return Runbook(
        name=name,
        manual=_manual(name),
        steps=steps,
        succeeded=lambda ports, run: ((), _told(ports, run, "well")),
        refused=lambda ports, run, _step: [_told(ports, run, "undone")],
        ended=lambda _ports, _run: None,
        deadline_s=60,
    )


CHILD = _runbook("synthetic_child", (Step("synthetic_child.work", "Documents", "work", ""),))
RUNBOOK = _runbook(
    "synthetic",
    (
        Step("synthetic.choose", "Documents", "choose", "", act=_choose, reads_only=True),
        Step(
            "synthetic.make",
            "Documents",
            "make",
            "unmake",
            act=_make,
            look=_look_made,
            undo=_unmake,
        ),
        Step(
            "synthetic.topic",
            "Signals",
            "make a topic",
            "delete it",
            act=_make_topic,
            look=_look_topic,
            undo=_unmake_topic,
        ),
        Step("synthetic.wait", "Documents", "wait", "", ready=gate, wait_limit_s=600),
        Step(
            "synthetic.each",
            "Documents",
            "count each",
            "count back",
            chunk=each,
            undo_chunk=_undo_each,
        ),
        Step(
            "synthetic.start",
            "Documents",
            "start runs",
            "cancel them",
            act=_start_children,
            undo=_cancel_children,
        ),
        Step("synthetic.join", "Documents", "wait for them", "", ready=waits.for_children),
        Step("synthetic.finish", "Documents", "end", ""),
    ),
)


@cache
def known() -> Runbooks:
    return {RUNBOOK.name: RUNBOOK, CHILD.name: CHILD}


def populate(ports: Ports, members: int, first: int = 0) -> None:
    for at in range(first, members, 100):
        ports.documents.commit(
            [
                Create(f"members/m-{n:05d}", {"count": 0, "by": ""})
                for n in range(at, min(members, at + 100))
            ]
        )


def counts(ports: Ports) -> set[int]:
    return {d.data["count"] for d in ports.documents.scan(Query("members", limit=1000))}


def start(ports: Ports, key: str = "k-1", *, is_open: bool = True, children: int = 2) -> Run:
    run = intake.new_run(
        ports,
        RUNBOOK,
        {"account_id": ACCOUNT, "children": children},
        account_id=ACCOUNT,
        trigger=Trigger.COMMAND,
        dedupe_key=key,
    )
    if is_open:
        open_gate(ports, run.run_id)
    return intake.begin(ports, RUNBOOK, run)


def open_gate(ports: Ports, run_id: str) -> None:
    ports.documents.commit([Create(f"gates/{run_id}", {})])
