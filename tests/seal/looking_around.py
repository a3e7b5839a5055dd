"""Put before everything else into the children of a test (as sitecustomize): what a hostile library in each would see.

Appends one line of JSON to the file that FINETUI_LOOKED_AROUND names, and goes on with what the process was started
for; once more it tries to make a socket when that is done. It stands for code that a tokenizer, a template or a model
brought to run.
"""

import atexit
import errno
import json
import os
import socket
import sys
from pathlib import Path


def _tried(what):
    try:
        what()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    return "open"


def _connect():
    with socket.socket() as connection:
        connection.settimeout(10)
        connection.connect(("127.0.0.1", int(os.environ["FINETUI_LISTENER"])))


def _look():
    secret = Path(os.environ["FINETUI_TEST_SECRET"])
    told = {
        "command": " ".join(sys.orig_argv),
        "secret": _tried(lambda: secret.open().close()),
        "planting": _tried(lambda: secret.with_name("planted").open("w").close()),
        "network": _tried(_connect),
        "token": os.environ.get("HF_TOKEN", ""),
    }
    with Path(os.environ["FINETUI_LOOKED_AROUND"]).open("a") as file:
        file.write(json.dumps(told) + "\n")


if "FINETUI_LOOKED_AROUND" in os.environ:
    _look()
    atexit.register(_tried, lambda: socket.socket().close())
