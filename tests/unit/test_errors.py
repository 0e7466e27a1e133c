"""The closed set of errors: contract section 4, row by row."""

from __future__ import annotations

import copy
import pickle

import pytest

from pyproc import errors
from pyproc.errors import (
    CallError,
    ConfigError,
    ProtectionUnavailable,
    PyprocError,
    ResourceExhausted,
    Unavailable,
    WorkerLost,
    from_code,
)
from pyproc_wire.codes import BOUNDS

CONTRACT = [
    ("invalid_argument", "InvalidArgument", 400, 65), ("unauthenticated", "Unauthenticated", 401, 77),
    ("permission_denied", "PermissionDenied", 403, 77), ("not_found", "NotFound", 404, 66),
    ("payload_too_large", "PayloadTooLarge", 413, 65), ("resource_exhausted", "ResourceExhausted", 429, 75),
    ("function_failed", "FunctionFailed", 422, 1), ("cancelled", "Cancelled", 499, 130),
    ("deadline_exceeded", "DeadlineExceeded", 504, 124), ("worker_lost", "WorkerLost", 502, 71),
    ("unavailable", "Unavailable", 503, 69), ("internal", "InternalError", 500, 70),
]
FIELDS = {"error_id": "ab12", "path": "$.a[2]", "bound": "queue", "reason": "oom", "retry_after": 1.5, "may_have_run": True}


@pytest.mark.parametrize(("code", "name", "http", "leaves"), CONTRACT)
def test_each_code_is_its_class_with_its_numbers(code: str, name: str, http: int, leaves: int) -> None:
    error = from_code(code, "no")
    assert type(error) is getattr(errors, name)
    assert (error.code, error.http_status, error.exit_code, error.message, str(error)) == (code, http, leaves, "no", "no")


def test_the_table_has_nothing_else() -> None:
    assert sorted(errors.CLASSES) == sorted(row[0] for row in CONTRACT)
    assert set(errors.CLASSES.values()) == set(CallError.__subclasses__())


@pytest.mark.parametrize("code", ["", "PyprocError", "InternalError", "__class__", "os.system", "INTERNAL"])
def test_a_code_outside_the_set_chooses_no_class(code: str) -> None:
    assert type(from_code(code, "x")) is errors.InternalError


@pytest.mark.parametrize("code", sorted(errors.CLASSES))
@pytest.mark.parametrize("carry", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_an_error_keeps_everything_when_it_is_carried(code: str, carry: object) -> None:
    error = from_code(code, "not now", **FIELDS)  # type: ignore[arg-type]
    error.add_note("seen in a test")
    carried = carry(error)  # type: ignore[operator]
    assert type(carried) is type(error)
    assert carried.fields() == {"code": code, "message": "not now", **FIELDS}
    assert (str(carried), carried.__notes__, carried.retryable) == ("not now", ["seen in a test"], error.retryable)


@pytest.mark.parametrize("carry", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_a_missing_layer_is_carried_with_its_remedy_once(carry: object) -> None:
    carried = carry(ProtectionUnavailable("layer x is missing", layer="x", remedy="switch it on"))  # type: ignore[operator]
    assert (str(carried), carried.layer, carried.remedy) == ("layer x is missing; remedy: switch it on", "x", "switch it on")


def test_fields_that_do_not_apply_are_left_out_of_json() -> None:
    assert from_code("not_found", "no such method").fields() == {"code": "not_found", "message": "no such method"}
    assert from_code("worker_lost", "x", may_have_run=False).fields()["may_have_run"] is False


@pytest.mark.parametrize(("may_have_run", "again"), [(None, False), (True, False), (False, True)])
def test_a_lost_call_is_retryable_only_if_it_surely_did_not_run(may_have_run: bool | None, again: bool) -> None:
    assert WorkerLost("x", may_have_run=may_have_run).retryable is again


def test_what_passes_by_itself_is_retryable() -> None:
    again = {code for code in errors.CLASSES if from_code(code, "x").retryable}
    assert again == {"resource_exhausted", "unavailable"}


@pytest.mark.parametrize("bound", sorted(BOUNDS))
def test_a_limit_of_the_function_is_met_again(bound: str) -> None:
    assert ResourceExhausted("x", bound=bound).retryable is (bound in {"rate", "queue", "connections", "in_flight"})


def test_a_closed_pool_does_not_open_again() -> None:
    assert not Unavailable("closed", reason="shutdown").retryable and Unavailable("x", reason="restart_intensity").retryable


@pytest.mark.parametrize("kind", [PyprocError, ConfigError, ProtectionUnavailable, CallError, *errors.CLASSES.values()])
def test_every_class_names_cause_and_remedy(kind: type[Exception]) -> None:
    assert "Cause" in str(kind.__doc__)
    assert "emedy" in str(kind.__doc__)


@pytest.mark.parametrize("kind", [ConfigError, ProtectionUnavailable])
def test_a_refusal_to_start_leaves_with_78(kind: type[ConfigError]) -> None:
    assert kind.exit_code == 78
    assert not issubclass(kind, CallError)
