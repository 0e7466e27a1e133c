"""What a person signs: what a record proves, when it ends, and what becomes of one that was touched."""

from __future__ import annotations

import datetime
import os
import random
import threading
from pathlib import Path

import pytest

from pyproc.doctor import attestation, checklist, records
from pyproc.doctor.accepted import Acceptance
from pyproc.doctor.attestation import Record
from pyproc.doctor.boxes import ATTESTED, BY_NAME
from pyproc.doctor.checklist import Site
from pyproc.errors import ConfigError

NOW = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
BACKUP = Record("backup", "", "Ada", 1000, NOW - DAY, NOW + DAY, "restored on the second machine; it serves", "")
KEY = bytes(range(32))


def site(*signed: Record, faults: tuple[str, ...] = ()) -> Site:
    return Site(NOW, {}, False, "", signed, faults, Acceptance((), ()))


def state(*signed: Record, box: str = "backup") -> tuple[str, str]:
    found = next(each for each in checklist.judge({}, site(*signed)) if each.name == box)
    return found.state, found.evidence[0]


def test_a_record_comes_back_as_it_was_written() -> None:
    odd = BACKUP._replace(by='Ada "the \u202e first",\n"mac":"', statement="é\x00\ud800")
    text = attestation.sign(BACKUP, KEY) + attestation.sign(odd, KEY)
    assert attestation.read(text, KEY) == ([BACKUP, odd], [])


def test_any_changed_byte_is_found_and_hides_no_other_record() -> None:
    text = attestation.sign(BACKUP, KEY)
    other = attestation.sign(BACKUP._replace(by="Bob"), KEY)
    letters = [chr(number) for number in (*range(32, 127), 0xE9, 0x416)]
    for _ in range(200):
        place = random.randrange(len(text) - 1)
        touched = text[:place] + random.choice([letter for letter in letters if letter != text[place]]) + text[place + 1:]
        found, faults = attestation.read(touched + other, KEY)
        assert [record.by for record in found] == ["Bob"] and len(faults) == 1 and faults[0].startswith("line 1 does not")


@pytest.mark.parametrize("text", ["", "{}", "x", attestation.sign(BACKUP, KEY)[:-10]])
def test_what_is_no_record_counts_for_nothing(text: str) -> None:
    found, faults = attestation.read(text, KEY)
    assert found == [] and bool(faults) is bool(text)


def test_another_key_proves_nothing() -> None:
    found, faults = attestation.read(attestation.sign(BACKUP, KEY), bytes(32))
    assert found == [] and len(faults) == 1


def test_a_record_holds_until_its_end() -> None:
    held, told = state(BACKUP)
    assert held == "pass" and told.startswith("attested by Ada (uid 1000) on 2026-05-31 until 2026-06-02: restored")
    assert state() == ("fail", "nobody has attested it")
    over = state(BACKUP._replace(until=NOW))
    assert over[0] == "fail" and "is over" in over[1]
    ahead = state(BACKUP._replace(at=NOW + DAY, until=NOW + 2 * DAY))
    assert ahead[0] == "fail" and "lies ahead" in ahead[1]


def test_the_youngest_record_counts() -> None:
    assert state(BACKUP, BACKUP._replace(at=NOW - 3 * DAY, until=NOW - 2 * DAY))[0] == "pass"
    assert state(BACKUP._replace(at=NOW - 3 * DAY), BACKUP._replace(until=NOW))[0] == "fail"
    assert state(BACKUP._replace(until=NOW), BACKUP)[0] == "pass"  # of one second: the later line


def test_a_record_of_another_box_or_pool_does_not_count() -> None:
    assert state(BACKUP._replace(box="monitoring"))[0] == "fail"
    assert state(BACKUP._replace(pool="a"))[0] == "fail"


def test_records_that_cannot_be_read_are_told_at_the_boxes_they_were_for() -> None:
    found = {each.name: each for each in checklist.judge({}, site(faults=("line 3 does not verify",)))}
    assert all("line 3 does not verify" in found[name].evidence[0] for name in ATTESTED if not BY_NAME[name].of_code)


def test_files_are_made_beside_the_configuration(tmp_path: Path) -> None:
    config = str(tmp_path / "pyproc.toml")
    assert records.read(config) == ([], [])
    path = records.append(config, BACKUP)
    records.append(config, BACKUP._replace(by="Bob"))
    assert path == tmp_path / "attestations"
    assert (tmp_path / "attestations.key").stat().st_mode & 0o777 == 0o600
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["attestations", "attestations.key"]
    assert records.read(config) == ([BACKUP, BACKUP._replace(by="Bob")], [])


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_use_proves_nothing(tmp_path: Path, mode: int) -> None:
    config = str(tmp_path / "pyproc.toml")
    records.append(config, BACKUP)
    (tmp_path / "attestations.key").chmod(mode)
    found, faults = records.read(config)
    assert found == [] and f"mode is {mode:04o}" in faults[0]
    with pytest.raises(ConfigError, match="0600"):
        records.append(config, BACKUP)


@pytest.mark.parametrize("name", ["attestations", "attestations.key"])
def test_a_link_is_not_followed(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(bytes(32))
    victim.chmod(0o600)
    (tmp_path / name).symlink_to(victim)
    with pytest.raises(ConfigError):
        records.append(str(tmp_path / "pyproc.toml"), BACKUP)
    assert victim.read_bytes() == bytes(32)


def test_a_key_of_another_length_is_refused(tmp_path: Path) -> None:
    (tmp_path / "attestations.key").touch(0o600)
    with pytest.raises(ConfigError, match="has 0 bytes, a key has 32"):
        records.append(str(tmp_path / "pyproc.toml"), BACKUP)


def test_no_records_without_their_key(tmp_path: Path) -> None:
    config = str(tmp_path / "pyproc.toml")
    records.append(config, BACKUP)
    os.unlink(tmp_path / "attestations.key")
    found, faults = records.read(config)
    assert found == [] and "attestations.key cannot be used" in faults[0]


def test_two_who_begin_at_once_get_the_same_key(tmp_path: Path) -> None:
    config = str(tmp_path / "pyproc.toml")
    gate = threading.Barrier(8)

    def attest(by: str) -> None:
        gate.wait()
        records.append(config, BACKUP._replace(by=by))

    threads = [threading.Thread(target=attest, args=(str(n),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found, faults = records.read(config)
    assert sorted(record.by for record in found) == [str(n) for n in range(8)] and faults == []
    assert len(list(tmp_path.iterdir())) == 2
