"""The attacks, read and checked.

    attacks/CLASS.toml -> load() -> (Attack, ...) -> source(attack), the text that is run

Rules and reasons:
* One file for each class of attack; an id is CLASS.NAME and names what is attempted, never how it ends.
* Surplus or missing fields, unknown layers, double ids and code that does not compile are errors: a misspelt row
  would else be an attack that never runs and always passes.
* `control` is "run", or the reason why the attack cannot be shown to work on a plain machine.
* `scene` says who takes part. "alone": one call. "earlier call": `plant` runs in a call before, under isolation="call".
  "sibling": `plant` runs in another worker that is alive. "peer": the worker attacks its own supervisor, and what a later
  caller gets and what the log holds decide; its control is `careless`, the same against a reader without our rules.
* `granted`, profile -> reason: under that profile the attempt is a right that workers have, and no escape.
* `namespace` puts the control into a fresh user namespace, where it holds every capability: that is where a worker
  would stand if the walls around it had been forgotten.
"""

from __future__ import annotations

import json
import platform
import textwrap
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Final

from pyproc.attack.prelude import ESCAPED, PRELUDE
from pyproc.config.options import LAYERS

SUPERVISOR: Final = "supervisor"  # beside the layers: what is kept outside of the worker, clocks, limits and the protocol
SCENES: Final = ("alone", "earlier call", "sibling", "peer")
MACHINES: Final = ("aarch64", "x86_64")
CONTROL_RUN: Final = "run"
_REQUIRED = frozenset({"id", "title", "layers", "code"})
_OPTIONAL = frozenset({"control", "granted", "namespace", "machines", "scene", "plant", "careless"})


class CorpusError(ValueError):
    """A row that cannot be used: the text names file, row and remedy."""


@dataclass(frozen=True, slots=True)
class Attack:
    """One attempt. `layers`: those that stop it, any one of them; `code`, `plant`, `careless`: bodies of functions of `T`."""

    id: str
    kind: str
    title: str
    layers: tuple[str, ...]
    code: str
    control: str = CONTROL_RUN
    namespace: bool = False
    machines: tuple[str, ...] = MACHINES
    granted: Mapping[str, str] = field(default_factory=dict)
    scene: str = "alone"
    plant: str = ""
    careless: str = ""

    @property
    def has_control(self) -> bool:
        return self.control == CONTROL_RUN

    @property
    def fits_this_machine(self) -> bool:
        return platform.machine() in self.machines


@cache
def load() -> tuple[Attack, ...]:
    """All attacks, in the order of the files and rows."""
    found: dict[str, Attack] = {}
    folder = files("pyproc.attack") / "attacks"
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if not entry.name.endswith(".toml"):
            continue
        for row in tomllib.loads(entry.read_text("utf-8"))["attack"]:
            attack = parse(row, entry.name.removesuffix(".toml"))
            if attack.id in found:
                raise CorpusError(f"attack {attack.id!r} exists twice: give the second another name")
            found[attack.id] = attack
    return tuple(found.values())


def parse(row: dict[str, Any], kind: str) -> Attack:
    """One row of the file `kind`.toml."""
    name = row.get("id", "")
    where = f"attack {name!r} of {kind}.toml"
    missing, surplus = _REQUIRED - row.keys(), row.keys() - _REQUIRED - _OPTIONAL
    if missing or surplus:
        raise CorpusError(f"{where} lacks {sorted(missing)} and has the unknown {sorted(surplus)}: correct the row")
    if not isinstance(name, str) or not name.startswith(kind + ".") or len(name) == len(kind) + 1:
        raise CorpusError(f"{where} must have an id that begins with {kind + '.'!r}")
    unknown = sorted(set(row["layers"]) - {*LAYERS, SUPERVISOR})
    if unknown or not row["layers"]:
        raise CorpusError(f"{where} names the layers {unknown or 'none'}: use those of the contract, section 10")
    machines = tuple(row.get("machines", MACHINES))
    if not set(machines) <= set(MACHINES) or not machines:
        raise CorpusError(f"{where} is for {machines}: choose from {', '.join(MACHINES)}")
    granted = row.get("granted", {})
    if not all(isinstance(reason, str) and len(reason) > 20 for reason in granted.values()):
        raise CorpusError(f"{where} must tell for each profile in `granted` why workers have that right")
    attack = Attack(
        id=name,
        kind=kind,
        title=row["title"],
        layers=tuple(row["layers"]),
        code=row["code"].strip("\n"),
        control=row.get("control", CONTROL_RUN),
        namespace=row.get("namespace", False),
        machines=machines,
        granted=granted,
        scene=row.get("scene", SCENES[0]),
        plant=row.get("plant", "").strip("\n"),
        careless=row.get("careless", "").strip("\n"),
    )
    _refuse_a_wrong_cast(attack, where)
    for text in (source(attack), control_source(attack)):
        try:
            compile(text, f"<attack {name}>", "exec")
        except SyntaxError as error:
            raise CorpusError(f"{where} does not compile, line {error.lineno} of its source: {error.msg}") from error
    return attack


def _refuse_a_wrong_cast(attack: Attack, where: str) -> None:
    if attack.scene not in SCENES:
        raise CorpusError(f"{where} plays in the scene {attack.scene!r}: choose from {', '.join(SCENES)}")
    if bool(attack.plant) != (attack.scene in ("earlier call", "sibling")):
        raise CorpusError(f"{where} must have `plant` in the scenes earlier call and sibling, and in no other")
    if bool(attack.careless) != (attack.scene == "peer" and attack.has_control):
        raise CorpusError(f"{where} must have `careless` in the scene peer, where it has a control, and in no other")


def source(attack: Attack) -> str:
    """The whole text to run: it defines `attack(T)`, and `plant(T)` where the scene has one."""
    return PRELUDE + _function("plant", attack.plant) + _function("attack", attack.code)


def control_source(attack: Attack) -> str:
    """The text of the control: `attack(T)` plays the whole scene in a process, or in it and its child."""
    if attack.scene == "peer":
        return PRELUDE + _function("attack", attack.careless)
    if attack.scene == "alone":
        return source(attack)
    whole = _BY_A_CHILD if attack.scene == "sibling" else _ONE_AFTER_THE_OTHER
    return PRELUDE + _function("plant", attack.plant) + _function("second", attack.code) + _function("attack", whole)


_ONE_AFTER_THE_OTHER: Final = 'return second({**T, "planted": plant(T)})'
_BY_A_CHILD: Final = """
r, w = os.pipe()
sibling = os.fork()
if sibling == 0:
    os.write(w, json.dumps(plant(T)).encode())
    os.close(w)
    time.sleep(20)
    os._exit(0)
os.close(w)
try:
    return second({**T, "planted": json.loads(os.read(r, 65536))})
finally:
    os.kill(sibling, signal.SIGKILL)
    os.waitpid(sibling, 0)"""


def _function(name: str, body: str) -> str:
    return f"\n\ndef {name}(T):\n" + textwrap.indent(body, "    ") + "\n" if body else ""


def numbers(machine: str | None = None) -> dict[str, int]:
    """The numbers of the system calls that the attacks make by number, name -> number."""
    machine = machine or platform.machine()
    table: dict[str, dict[str, int]] = json.loads((files("pyproc.attack") / "attacks" / "numbers.json").read_text("utf-8"))
    if machine not in table:
        raise CorpusError(f"machine {machine!r} has no call numbers here: the corpus runs on {', '.join(MACHINES)}")
    return table[machine]


def escaped(answer: object) -> bool:
    """Whether an attack's answer says that it got what it wanted."""
    return isinstance(answer, str) and answer.startswith(ESCAPED)
