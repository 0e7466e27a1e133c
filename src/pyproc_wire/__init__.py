"""The language of supervisor and worker: bytes <-> messages. No I/O, no clock; standard library and msgspec.

    frame        a stream of bytes <-> payloads
    codec        payloads <-> messages and values, in MessagePack and JSON: `values` walks over a value,
                 `extensions`, `arrays` and `json_values` say what becomes of each type
    messages     the maps on the wire
    connection   the two ends of a worker's channel and the server's end of a client's, as state machines
    places       where a worker finds its channel
    errors       who broke a rule;  `codes` and `limits`: the closed sets and the numbers

The peer of a supervisor's connection is hostile. Nothing here imports, unpickles or looks up by a name from
the wire. Import from the modules: this file stays empty so that a worker loads only what it uses.
"""
