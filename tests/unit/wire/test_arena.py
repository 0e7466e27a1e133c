"""Arenas without a kernel: both ends over one piece of memory, and references that no honest sender makes."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable
from typing import Any

import numpy
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st
from msgspec.msgpack import Ext, encode

from pyproc_wire import arena, arrays, extensions
from pyproc_wire.arena import Receiver, Sender
from pyproc_wire.connection import CallerConnection, Succeeded, WorkerConnection
from pyproc_wire.errors import LocalProtocolError, RemoteProtocolError, UnencodableValue
from pyproc_wire.limits import ARENA_VALUE_BYTES as LARGE
from pyproc_wire.messages import LinkRequest

MIB = 1 << 20


class Mapping:
    """One piece of memory; each region is a new object over it."""

    def __init__(self, memory: bytearray) -> None:
        self._memory = memory

    def region(self) -> Any:
        return (ctypes.c_char * len(self._memory)).from_buffer(self._memory)


class Pair:
    """Both ends of a worker's channel with both arenas, of `size` bytes each."""

    def __init__(self, size: int = 4 * MIB, *, limit: int | None = None, response: int | None = None) -> None:
        self.requests, self.answers = Mapping(bytearray(size)), Mapping(bytearray(size))
        limit = size if limit is None else limit
        self.sender, self.mapped = Sender(lambda: self.requests), 0
        answers = Receiver(lambda: self.answers, limit, views=False)
        self.caller = CallerConnection(limit=2 * size, request_limit=limit, sender=self.sender, receiver=answers)
        self.built = Sender(lambda: self.answers)
        self.worker = WorkerConnection(request_limit=2 * size, response_limit=response or limit, sender=self.built,
                                       receiver=Receiver(self._map, limit, views=True))
        self.caller.receive(self.worker.ready({}))

    def _map(self) -> Mapping:
        self.mapped += 1
        return self.requests

    def ask(self, body: Any, id: int = 1) -> tuple[Any, bytes]:
        """What the function is given, and the frame."""
        frame = self.caller.request(id, "f", body)
        [request] = self.worker.receive(frame)
        assert isinstance(request, LinkRequest)
        return self.worker.value(request.body), frame

    def answer(self, value: Any, id: int = 1, *, views: bool = False) -> tuple[Any, bytes]:
        """What the caller gets, and the frame."""
        frame = self.worker.success(id, value)
        self.worker.settle()
        [event] = self.caller.receive(frame)
        assert isinstance(event, Succeeded)
        return self.caller.value(event.body, views=views), frame


def reference(offset: int, array: Any = None, *, header: bytes | None = None, size: int | None = None) -> bytes:
    """An encoded reference, to an array or to `size` bytes."""
    if size is not None:
        return encode(Ext(extensions.ARENA_BYTES, offset.to_bytes(8, "big") + size.to_bytes(8, "big")))
    given = bytes(arrays._header(array, array)) if header is None else header
    return encode(Ext(extensions.ARENA_ARRAY, offset.to_bytes(8, "big") + given))


def forged(pair: Pair, body: bytes) -> Any:
    """What the caller makes of an answer with this body."""
    pair.caller.request(1, "f", None)
    payload = b"\x83\xa2id\x01\xa2ok\xc3\xa4body" + body
    [event] = pair.caller.receive(len(payload).to_bytes(4, "big") + payload)
    assert isinstance(event, Succeeded)
    return pair.caller.value(event.body)


def head(dtype: str, *shape: int) -> bytes:
    return bytes((len(dtype),)) + dtype.encode() + bytes((len(shape),)) + b"".join(n.to_bytes(8, "big") for n in shape)


ARRAYS = st.one_of(
    numpy_st.boolean_dtypes(), numpy_st.integer_dtypes(endianness="?"), numpy_st.floating_dtypes(endianness="?"),
    numpy_st.complex_number_dtypes(endianness="?"), numpy_st.datetime64_dtypes(endianness="?"),
    numpy_st.byte_string_dtypes(min_len=1, max_len=8), numpy_st.unicode_string_dtypes(endianness="?", min_len=1, max_len=8),
).flatmap(lambda dtype: numpy_st.arrays(dtype, numpy_st.array_shapes(min_dims=0, min_side=0, max_side=4)))


@given(array=ARRAYS, repeat=st.booleans(), order=st.sampled_from("CFAK"), step=st.sampled_from([1, 2, -1, -3]))
@example(array=numpy.array("x" * 8), repeat=True, order="C", step=1)
@settings(deadline=None, max_examples=60)
def test_an_array_arrives_above_and_below_the_threshold_as_it_was(array: Any, repeat: bool, order: Any, step: int) -> None:
    if repeat and array.size:
        array = numpy.tile(array, (-(-LARGE // array.nbytes) * abs(step), *[1] * max(0, array.ndim - 1)))
    array = numpy.array(array, order=order)
    if array.ndim:
        array = array[::step]
    pair = Pair(16 * MIB)
    sent = {"a": [array, (array,)]}
    got, frame = pair.ask(sent)
    back, answered = pair.answer(got)
    for value in (got["a"][0], got["a"][1][0], back["a"][0], back["a"][1][0]):
        assert (value.dtype, value.shape, value.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert not got["a"][0].flags.writeable
    assert back["a"][0].flags.writeable and back["a"][0].flags.owndata
    assert (len(frame) < LARGE) and (len(answered) < LARGE)


@pytest.mark.parametrize("size", [LARGE - 1, LARGE])
def test_bytes_and_arrays_go_through_the_arena_from_the_threshold_on(size: int) -> None:
    pair = Pair()
    content = random.randbytes(size)
    for number, body in enumerate((content, [content, b"s"], {"k": content, "n": 1}, ({1: content},),
                                   numpy.frombuffer(content, "u1"), {"k": numpy.frombuffer(content, "u1")}), 1):
        got, frame = pair.ask(body, number)
        assert (len(frame) < 200) == (size >= LARGE)
        back, answered = pair.answer(got, number)
        assert (len(answered) < 200) == (size >= LARGE)
        assert str(back) == str(body)
        numpy.testing.assert_equal(back, body)


def test_what_finds_no_room_stands_in_the_frame() -> None:
    pair = Pair(MIB, limit=8 * MIB)
    first, second = (random.randbytes(LARGE * 3) for _ in range(2))
    got, frame = pair.ask([first, second])
    assert got == [first, second] and LARGE * 3 < len(frame) < LARGE * 4


def test_the_bytes_in_the_arena_count_towards_the_limits() -> None:
    content = random.randbytes(LARGE)
    pair = Pair(MIB)
    exact = len(pair.ask(content)[1]) - 4 + LARGE
    Pair(MIB, limit=exact).ask(content)
    with pytest.raises(LocalProtocolError, match=f"request is {exact} bytes, limit is {exact - 1}"):
        Pair(MIB, limit=exact - 1).ask(content)
    exact = len(pair.answer(content)[1]) - 4 + LARGE
    for response in (exact, exact - 1):
        tight = Pair(MIB, response=response)
        tight.ask(1)
        if response == exact:
            assert tight.answer(content)[0] == content
        else:
            with pytest.raises(LocalProtocolError, match=f"success is {exact} bytes"):
                tight.answer(content)
            assert len(tight.worker.failure(1, "internal", "no")) < 200


def test_a_call_beside_an_open_one_does_not_touch_the_arena() -> None:
    pair = Pair()
    first, second = random.randbytes(LARGE), random.randbytes(LARGE)
    pair.ask(first, 1)
    got, frame = pair.ask(second, 2)
    assert got == second and len(frame) > LARGE
    assert bytes(pair.requests.region())[:LARGE] == first


def test_what_is_refused_leaves_the_arena_free() -> None:
    pair = Pair(MIB)
    with pytest.raises(UnencodableValue):
        pair.ask([b"x" * MIB, object()])
    got, frame = pair.ask(b"y" * (MIB - 1024))
    assert got == b"y" * (MIB - 1024) and len(frame) < 200


def test_what_a_function_keeps_stays_what_it_was() -> None:
    """The receiver maps privately; here the memory is one, so that what is kept must be left alone and another mapping made."""
    pair = Pair()
    first = numpy.arange(LARGE, dtype="u1")
    kept, _ = pair.ask(first, 1)
    del kept
    pair.answer(None, 1)
    assert pair.mapped == 1
    kept, _ = pair.ask(first, 2)
    kept = kept[5:]
    pair.answer(None, 2)
    assert pair.mapped == 1
    pair.ask(first, 3)
    assert pair.mapped == 2
    assert (kept == first[5:]).all()


def test_what_was_built_in_the_arena_is_not_copied() -> None:
    pair = Pair()
    room = pair.built.reserve(2 * LARGE)
    assert room is not None
    region, offset = room
    built = numpy.frombuffer(region, "u1", 2 * LARGE, offset)
    built[:] = 7
    pair.ask(1)
    other = numpy.full(LARGE, 9, "u1")
    (back, again, part), frame = pair.answer([built, other, built[LARGE:]])
    assert (back == 7).all() and (again == 9).all() and (part == 7).all() and len(frame) < 300
    assert not any(bytes(pair.answers.region())[2 * LARGE : offset])
    pair.ask(1, 2)
    assert pair.answer(numpy.full(3 * MIB, 1, "u1"), 2)[0].all()  # what was built is over with its answer: there is room
    assert len(pair.worker.codec.encode_value(built)) > LARGE


def test_views_for_the_caller_are_read_only_and_end_with_settle() -> None:
    pair = Pair()
    pair.ask(1)
    view, _ = pair.answer(numpy.full(LARGE, 3, "u1"), views=True)
    assert not view.flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        view.flags.writeable = True
    memoryview(pair.answers.region()).cast("B")[0] = 4
    assert view[0] == 4  # until it is released, what the worker writes is seen
    pair.caller.settle()


ONE = numpy.zeros(LARGE, "u1")
HOSTILE: dict[str, bytes] = {
    "an offset at the end": reference(4 * MIB, ONE),
    "an end one byte beyond": reference(4 * MIB - LARGE + 1, ONE),
    "the largest offset": reference(2**64 - 1, ONE),
    "an end that is 0 in 64 bits": reference(2**64 - LARGE, ONE),
    "a negative offset, as it would be in 64 bits": reference(2**64 - 64, ONE),
    "a shape whose product is 0 in 64 bits": reference(0, header=head("<f8", 2**32, 2**32)),
    "a shape of the greatest lengths": reference(0, header=head("|u1", *[2**64 - 1] * 32)),
    "33 dimensions": reference(0, header=head("|u1", *[1] * 33)),
    "a shape that needs more than there is": reference(0, header=head("<f8", MIB)),
    "a value of no bytes": reference(0, header=head("|u1", 0)),
    "a value that is not large": reference(0, header=head("|u1", LARGE - 1)),
    "objects": reference(0, header=head("|O", LARGE)),
    "a dtype of numpy's parser": reference(0, header=head("f8,f8", LARGE)),
    "a void": reference(0, header=head("|V8", LARGE)),
    "a header without its shape": reference(0, header=head("|u1", LARGE)[:-8]),
    "a header and more": reference(0, header=head("|u1", LARGE) + b"\0"),
    "no header": reference(0, header=b""),
    "no offset": encode(Ext(extensions.ARENA_ARRAY, b"\0\0\0")),
    "bytes beyond the end": reference(4 * MIB - LARGE + 1, size=LARGE),
    "bytes whose end is 0 in 64 bits": reference(2**64 - LARGE, size=LARGE),
    "bytes of the greatest length": reference(0, size=2**64 - 1),
    "bytes without a length": encode(Ext(extensions.ARENA_BYTES, bytes(8))),
    "bytes with more than a length": encode(Ext(extensions.ARENA_BYTES, bytes(17))),
    "one value again and again, beyond the limit": b"\x9f" + reference(0, numpy.zeros(MIB // 2, "u1")) * 15,
    "a reference within a tuple": encode(Ext(extensions.TUPLE, b"\x91" + reference(4 * MIB, ONE))),
    "a reference as a key": b"\x81" + reference(0, ONE) + b"\x01",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_reference_that_no_sender_makes_is_a_breach(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        forged(Pair(), body)


def test_a_reference_is_a_breach_where_no_arena_was_offered() -> None:
    caller = CallerConnection()
    pair = Pair()
    pair.caller = caller
    caller.receive(WorkerConnection().ready({}))
    for body in (reference(0, ONE), reference(0, size=LARGE)):
        with pytest.raises(RemoteProtocolError, match="unknown"):
            forged(pair, body)
        caller._open.clear()
    request = LinkRequest(1, "f", body=pair.worker.codec.encode_value(1))  # type: ignore[arg-type]
    assert request.body
    with pytest.raises(RemoteProtocolError, match="none was offered"):
        WorkerConnection().value(reference(0, ONE))


@given(st.binary(min_size=8, max_size=60))
@settings(deadline=None)
def test_any_reference_is_a_value_or_a_breach(payload: bytes) -> None:
    for code in (extensions.ARENA_ARRAY, extensions.ARENA_BYTES):
        try:
            forged(Pair(), encode(Ext(code, payload)))
        except RemoteProtocolError:
            continue


@pytest.mark.parametrize("dtype", ["?", "<U4"])
def test_of_what_not_all_bytes_can_be_read_a_copy_is_looked_at(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair()
    memory = memoryview(pair.answers.region()).cast("B")
    check: Callable[..., Any] = arrays._view

    def and_then_the_worker_writes(*arguments: Any) -> Any:
        checked = check(*arguments)
        memory[:16] = b"\xff" * 16
        return checked

    monkeypatch.setattr(arrays, "_view", and_then_the_worker_writes)
    kind = numpy.dtype(dtype)
    array = numpy.zeros(LARGE // kind.itemsize, kind)
    got = forged(pair, reference(0, array))
    assert got.tobytes() == array.tobytes()
    with pytest.raises(RemoteProtocolError):
        pair.caller._open.clear()
        forged(pair, reference(0, array))


def test_nothing_is_mapped_for_small_values() -> None:
    pair = Pair()
    pair.ask({"x": b"small", "a": numpy.zeros(10)})
    assert pair.mapped == 0
    pair.answer(1)
    assert arena.ALIGNMENT == 64
