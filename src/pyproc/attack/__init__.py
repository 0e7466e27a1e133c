"""The escape corpus: attacks as data, and the means to run them inside a sandbox and beside it.

Rules and reasons:
* An attack is a row in `attacks/*.toml`; the code here is shorter than the catalogue.
* An attack counts as stopped only where its control shows that it works without the sandbox, or the row says why
  that cannot be shown on a plain machine.
* This room uses the public names of pyproc alone: it is a caller like any other. `sweep` also reads the filters' text,
  which is what it compares the kernel with.
"""
