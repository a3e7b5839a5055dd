"""Model folders that were made to do harm, or to take all memory or time, one for each case: a good folder, spoilt."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Spoil = Callable[[Path], None]

GIB = 1 << 30
DEEP = 100_000


def config(**changes: Any) -> Spoil:
    """With these fields of config.json in place of its own."""
    return lambda folder: _change_json(folder / "config.json", changes)


def json_of(name: str, **changes: Any) -> Spoil:
    return lambda folder: _change_json(folder / name, changes)


def text(name: str, content: str) -> Spoil:
    return lambda folder: _write(folder / name, content.encode())


def sparse(name: str, size: int, head: bytes = b"{", tail: bytes = b"}") -> Spoil:
    """A file of `size` bytes that takes hardly any room on the disk."""

    def spoil(folder: Path) -> None:
        _write(folder / name, head)
        with (folder / name).open("r+b") as file:
            file.seek(size - len(tail))
            file.write(tail)

    return spoil


def header(value: Any = None, *, claimed: int | None = None, raw: bytes | None = None, data: bytes = b"") -> Spoil:
    """Weights whose header is `value`, or `raw`, said to be `claimed` bytes long."""

    def spoil(folder: Path) -> None:
        told = raw if raw is not None else json.dumps(value).encode()
        length = (len(told) if claimed is None else claimed).to_bytes(8, "little")
        _write(folder / "model.safetensors", length + told + data)

    return spoil


def index(weight_map: dict[str, Any], also: Spoil = lambda folder: None) -> Spoil:
    """Weights in several files, as this index names them."""

    def spoil(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-1.safetensors")
        _write(folder / "model.safetensors.index.json", json.dumps({"weight_map": weight_map}).encode())
        also(folder)

    return spoil


def link(name: str, target: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return spoil


def secret_link(name: str) -> Spoil:
    """A link to a person's key beside the folder."""

    def spoil(folder: Path) -> None:
        (folder.parent / "id_ed25519").write_text("a private key")
        link(name, str(folder.parent / "id_ed25519"))(folder)

    return spoil


def pipe(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return spoil


def archive(kind: str) -> Spoil:
    def spoil(folder: Path) -> None:
        packed = io.BytesIO()
        if kind == "zip":
            with zipfile.ZipFile(packed, "w") as file:
                file.writestr("a", b"0" * 1000)
        else:
            with tarfile.open(fileobj=packed, mode="w") as tar:
                tar.addfile(tarfile.TarInfo("model"), io.BytesIO())
        _write(folder / "model.safetensors", packed.getvalue())

    return spoil


def gguf_only(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    # A header that speaks of 2^63 tensors and keys.
    _write(folder / "model.gguf", b"GGUF" + (3).to_bytes(4, "little") + b"\xff" * 16 + bytes(64))


def adapter_only(folder: Path) -> None:
    (folder / "config.json").unlink()
    _write(folder / "adapter_config.json", b'{"base_model_name_or_path": "https://203.0.113.7/base\\u001b[2J"}')


def tensor(dtype: Any = "F32", shape: Any = (2, 2), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def _config_cases() -> dict[str, tuple[Spoil, str]]:
    return {
        "config of 1 GiB": (sparse("config.json", GIB), "config.json: is 1,073,741,824 bytes; at most"),
        "config nested deeply": (
            text("config.json", "[" * DEEP),
            "config.json: it is not usable JSON: nested too deeply",
        ),
        "field nested deeply": (
            text("config.json", '{"model_type": "llama", "hidden_size": ' + "[" * 500 + "]" * 500 + "}"),
            "nested too deeply",
        ),
        "10^30 layers": (config(num_hidden_layers=10**30), "field num_hidden_layers: is 1000"),
        "a billion layers": (config(num_hidden_layers=10**9), "field num_hidden_layers: is 1000000000"),
        "1e308 wide": (config(hidden_size=1e308), "field hidden_size: is 1e+308"),
        "a number of 5,000 digits": (
            text("config.json", '{"model_type": "llama", "hidden_size": ' + "9" * 5000 + "}"),
            "config.json: it is not usable JSON",
        ),
        "width as text": (config(hidden_size="64"), "field hidden_size: is '64'"),
        "negative vocabulary": (config(vocab_size=-1), "field vocab_size: is -1"),
        "true as a number": (config(num_attention_heads=True), "field num_attention_heads: is True"),
        "NaN": (text("config.json", '{"model_type": "llama", "hidden_size": NaN}'), "number that is none (NaN)"),
        "a key twice": (
            text("config.json", '{"model_type": "llama", "model_type": "x"}'),
            "'model_type' is there twice",
        ),
        "terminal codes": (config(architectures=["\x1b]0;owned\x07"]), "\\x1b]0;owned\\x07"),
        "config is a pipe": (pipe("config.json"), "config.json: is a pipe, not a file"),
        "config is a device": (link("config.json", "/dev/zero"), "config.json: is a link out of the folder"),
        "code": (config(auto_map={"AutoModel": "evil.Model"}), "field auto_map: this model wants to run 1 Python file"),
        "code in the text part": (
            config(text_config={"model_type": "llama", "auto_map": {"AutoModel": "evil.Model"}}),
            "field auto_map: this model wants to run 1 Python file",
        ),
        "code of a pipeline": (
            config(custom_pipelines={"chat": {"impl": "evil.Pipe"}}),
            "field custom_pipelines: this model wants to run",
        ),
        "a kernel from a hub": (config(attn_implementation="org/x"), "asks for the downloaded kernel org/x"),
        "a kernel for a part": (config(attn_implementation={"text": "org/x"}), "asks for the downloaded kernel org/x"),
        "weights from elsewhere": (
            config(transformers_weights="../other.safetensors"),
            "field transformers_weights: is '../other.safetensors'",
        ),
        "quantised by code": (config(quantization_config={"quant_method": "x\ny"}), "already quantised (x\\ny)"),
        "generation config of 1 GiB": (
            sparse("generation_config.json", GIB),
            "generation_config.json: is 1,073,741,824",
        ),
        "generation config is a pipe": (pipe("generation_config.json"), "generation_config.json: is a pipe"),
        "an adapter beside it": (
            text("adapter_config.json", '{"base_model_name_or_path": "https://203.0.113.7/x"}'),
            "adapter_config.json: lies beside config.json (made for https://203.0.113.7/x)",
        ),
        "only an adapter": (adapter_only, "is an adapter, not a model (made for https://203.0.113.7/base\\x1b[2J)"),
        "only GGUF": (gguf_only, "holds only GGUF files"),
    }


def _weight_cases() -> dict[str, tuple[Spoil, str]]:
    many = b"{" + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % n for n in range(200_000)) + b"}"
    return {
        "header of 2^60 bytes": (header({}, claimed=1 << 60), "its header claims 1,152,921,504,606,846,976 bytes"),
        "header as large as its file": (
            sparse("model.safetensors", GIB, (GIB - 8).to_bytes(8, "little")),
            "has a header of 1,073,741,816 bytes",
        ),
        "200,000 tensors in one header": (header(raw=many), "has a header of"),
        "overlapping tensors": (
            header({"a": tensor(), "b": tensor(offsets=(8, 24))}, data=bytes(24)),
            "tensor b: starts at byte 8 where the one before ends at 16",
        ),
        "beyond the file": (header({"a": tensor()}, data=bytes(4)), "its tensors need 16 bytes and 4 are there"),
        "negative offsets": (header({"a": tensor(offsets=(-16, 0))}), "tensor a: has the impossible data_offsets"),
        "overflowing shape": (
            header({"a": tensor(shape=[1 << 40, 1 << 40], offsets=(0, 0))}),
            "tensor a: is 4,835,703,278,458,516,698,824,704 bytes by its shape",
        ),
        "ten dimensions": (header({"a": tensor(shape=[1] * 10)}, data=bytes(16)), "tensor a: has the impossible shape"),
        "shape of texts": (
            header({"a": tensor(shape=["2", "2"])}, data=bytes(16)),
            "tensor a: has the impossible shape",
        ),
        "dtype of nonsense": (
            header({"a": tensor(dtype="\x1b[2J")}, data=bytes(16)),
            "tensor a: has the unknown dtype",
        ),
        "dtype is a list": (header({"a": tensor(dtype=[[]])}, data=bytes(16)), "tensor a: has the unknown dtype"),
        "a tensor twice": (
            header(raw=b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{}}', data=bytes(4)),
            "'a' is there twice",
        ),
        "header is a list": (header([]), "its header is JSON but no object"),
        "bytes behind": (header({"a": tensor()}, data=bytes(99)), "has 83 bytes after its last tensor"),
        "a zip": (archive("zip"), "model.safetensors: is a zip archive"),
        "a tar": (archive("tar"), "model.safetensors: is a tar archive under the name"),
        "weights are a pipe": (pipe("model.safetensors"), "model.safetensors: is a pipe, not a file"),
        "weights are a device": (link("model.safetensors", "/dev/zero"), "is a link out of the folder"),
        "an LFS pointer": (
            text(
                "model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize " + "9" * 20 + "\n"
            ),
            "is a Git LFS pointer",
        ),
        "a shard further up": (
            index({"a": "../../etc/passwd"}),
            "names '../../etc/passwd', which is no file name here",
        ),
        "a shard by its whole path": (index({"a": "/etc/passwd"}), "names '/etc/passwd', which is no file name here"),
        "a shard that is none": (index({"a": ["model-1.safetensors"]}), "which is no file name here"),
        "an absent shard": (index({"a": "gone.safetensors"}), "names gone.safetensors, which the folder does not have"),
        "a shard that is a pipe": (index({"a": "p.safetensors"}, pipe("p.safetensors")), "p.safetensors: is a pipe"),
        "a shard that is a key": (
            index({"a": "k.safetensors"}, secret_link("k.safetensors")),
            "k.safetensors: is a link out of the folder, to a file of another name",
        ),
        "index of 1 GiB": (
            index({}, sparse("model.safetensors.index.json", GIB)),
            "index.json: is 1,073,741,824 bytes; at most",
        ),
    }


def _tokenizer_cases() -> dict[str, tuple[Spoil, str]]:
    added = {str(number): {"content": f"<{number}>"} for number in range(100_001)}
    return {
        "tokenizer of 1 GiB": (sparse("tokenizer.json", GIB), "tokenizer.json: has 1,073,741,824 bytes"),
        "tokenizer cut off": (text("tokenizer.json", '{"version": "1.0", "model": {'), "tokenizer.json: is cut off"),
        "tokenizer is a web page": (text("tokenizer.json", "<!DOCTYPE html><p>404"), "is a web page"),
        "tokenizer is a pipe": (pipe("tokenizer.json"), "tokenizer.json: is a pipe"),
        "tokenizer is a key": (secret_link("tokenizer.json"), "tokenizer.json: is a link out of the folder"),
        "a template is a key": (secret_link("chat_template.jinja"), "chat_template.jinja: is a link out of the folder"),
        "a template of 1 GiB": (sparse("chat_template.jinja", GIB), "chat_template.jinja: has 1,073,741,824 bytes"),
        "code of a tokenizer": (
            json_of("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokens", None]}),
            "tokenizer_config.json, field auto_map: this model wants to run 1 Python file",
        ),
        "100,001 added tokens": (
            json_of("tokenizer_config.json", added_tokens_decoder=added),
            "field added_tokens_decoder: has 100,001 tokens",
        ),
        "tokenizer config nested deeply": (text("tokenizer_config.json", '{"a":' * DEEP), "nested too deeply"),
    }


FOLDERS = {**_config_cases(), **_weight_cases(), **_tokenizer_cases()}
"""What is done to a folder, and what a person is told."""


def _write(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def _change_json(path: Path, changes: dict[str, Any]) -> None:
    _write(path, json.dumps(json.loads(path.read_text()) | changes).encode())
