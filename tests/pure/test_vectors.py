"""Against published test data, which is not ours to keep: name its folder in ``LEDGER_VECTORS``.

``jcs/{input,output}`` from cyberphone/json-canonicalization, ``merkle/{inclusion,consistency}``
from transparency-dev/merkle, ``tlog/tessera`` from transparency-dev/tessera (``testdata/log``).
"""

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import canonical, checkpoint, merkle, tiles
from ledger.checkpoint import Checkpoint, open_note, sign, vkey
from ledger.receipt import Signer

VECTORS = Path(os.environ.get("LEDGER_VECTORS", "nowhere"))
ORIGIN = "example.com/log/testdata"
VKEY = f"{ORIGIN}+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"
SEED = base64.b64decode("AeymY/SZAX0jZcJ8enZ5FY1Dz+wTML2yWSkK+9DSF3eg")[1:]

pytestmark = pytest.mark.skipif(
    not VECTORS.is_dir(), reason="set LEDGER_VECTORS to the folder of published test data"
)


def _probes(kind: str) -> list[Path]:
    return sorted((VECTORS / "merkle" / kind).rglob("*.json"))


def _bytes(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def _named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", _probes("inclusion"), ids=_named)
def test_an_inclusion_probe_has_its_answer(path: Path) -> None:
    probe: dict[str, Any] = json.loads(path.read_text())
    proof = [_bytes(each) for each in probe["proof"] or []]

    holds = merkle.verify_inclusion(
        probe["leafIdx"], probe["treeSize"], _bytes(probe["leafHash"]), proof, _bytes(probe["root"])
    )

    assert holds is not probe["wantErr"]


@pytest.mark.parametrize("path", _probes("consistency"), ids=_named)
def test_a_consistency_probe_has_its_answer(path: Path) -> None:
    probe: dict[str, Any] = json.loads(path.read_text())
    proof = [_bytes(each) for each in probe["proof"] or []]

    holds = merkle.verify_consistency(
        probe["size1"], probe["size2"], _bytes(probe["root1"]), _bytes(probe["root2"]), proof
    )

    assert holds is not probe["wantErr"]


@pytest.mark.parametrize("size", range(16))
def test_a_checkpoint_of_the_tiled_log_is_verified_and_reproduced(size: int) -> None:
    log = VECTORS / "tlog" / "tessera"
    leaves = list(tiles.entries((log / "tile/entries/000.p/15").read_bytes()))[:size]
    note = (log / f"checkpoint.{size}").read_text()
    signer = Signer(Ed25519PrivateKey.from_private_bytes(SEED))

    stated = checkpoint.parse(open_note(note, VKEY))

    assert stated == Checkpoint(ORIGIN, size, merkle.root(leaves))
    assert sign(stated, signer) == note
    assert vkey(ORIGIN, signer.public_key) == VKEY
    made = tiles.Tiles()
    files = [file for leaf in leaves for file in made.append(leaf)] + list(made.finish())
    assert all((log / name).read_bytes() == content for name, content in files)


@pytest.mark.parametrize(
    "path", sorted((VECTORS / "jcs" / "input").glob("*.json")), ids=lambda path: path.stem
)
def test_canonical_json_is_that_of_the_reference(path: Path) -> None:
    expected = (VECTORS / "jcs" / "output" / path.name).read_bytes()

    assert canonical.dumps(json.loads(path.read_bytes())) == expected
    assert canonical.is_canonical(canonical.loads(expected), expected)
