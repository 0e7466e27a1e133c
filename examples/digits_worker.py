"""A model in a sandbox: trained when the script is loaded, inside the walls; and a few functions that try the walls."""

from __future__ import annotations

import os
import socket
import subprocess
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from pyproc_worker import expose, run_worker

_digits = load_digits()  # 1,797 scans of handwritten digits, 8 x 8 pixels, shipped with scikit-learn
_half = len(_digits.target) // 2
_model = SVC(gamma=0.001).fit(_digits.data[:_half], _digits.target[:_half])
SECRET = "the-password-in-the-worker"


@expose
def classify(pixels: list[float]) -> int:
    """The digit on one scan of 64 grey values (0 to 16)."""
    return int(_model.predict(np.asarray(pixels).reshape(1, 64))[0])


@expose
def read_passwd() -> str:
    with open("/etc/passwd") as file:
        return file.read()


@expose
def open_socket() -> str:
    return str(socket.socket(socket.AF_INET, socket.SOCK_STREAM))


@expose
def start_program() -> str:
    return subprocess.run(["/bin/id"], capture_output=True, text=True, check=True).stdout


@expose
def loop_for_ever() -> None:
    while True:
        pass


@expose
def eat_memory() -> int:
    hoard: list[Any] = []
    while True:
        hoard.append(bytearray(64 << 20))


@expose
def crash() -> None:
    os.abort()


@expose
def raise_secret() -> None:
    raise ValueError(f"cannot log in with {SECRET}")


if __name__ == "__main__":
    run_worker()
