"""The work that every peer does, and nothing else: a pool of ours gets this text as its script (peers/pyproc_pool.py)."""


def double(body):
    return {"result": 2 * body["value"]}


def echo(body):
    return body
