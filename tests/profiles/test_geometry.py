"""What is read from a model folder, and what a person is told of a folder that is no usable model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_folder import LLAMA, llama_tensors, make_model, write_raw, write_safetensors

from profiles.geometry import inspect_model, read_geometry
from profiles.problem import Problem
from profiles.shapes.safetensors_header import read_header

HEAD = 300 * 64
LAYER = 2 * 64 + 2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64


def test_a_model_as_its_files_say(tmp_path: Path) -> None:
    geometry = read_geometry(make_model(tmp_path / "m", dtype="float16"))
    assert (geometry.layers, geometry.hidden_size, geometry.head_dim, geometry.kv_heads) == (2, 64, 16, 2)
    assert geometry.parameters == 2 * HEAD + 64 + 2 * LAYER
    assert geometry.weight_bytes == 2 * geometry.parameters
    assert (geometry.dtype, geometry.tied, geometry.context_length) == ("F16", False, 512)
    assert len(geometry.linear_shapes) == 14
    assert geometry.linear_shapes["model.layers.1.mlp.down_proj"] == (128, 64)
    json.dumps(geometry.as_dict())


def test_a_tied_head_counts_once_even_if_stored_twice(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", {"tie_word_embeddings": True})
    alone = read_geometry(folder)
    write_safetensors(folder / "model.safetensors", llama_tensors())  # with an lm_head.weight of its own
    assert read_geometry(folder).parameters == alone.parameters == HEAD + 64 + 2 * LAYER


def test_shards_are_read_through_their_index(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    whole = read_geometry(folder)
    shapes = llama_tensors()
    (folder / "model.safetensors").unlink()
    halves = {"a.safetensors": dict(list(shapes.items())[:9]), "b.safetensors": dict(list(shapes.items())[9:])}
    for name, part in halves.items():
        write_safetensors(folder / name, part)
    weight_map = {tensor: name for name, part in halves.items() for tensor in part}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert read_geometry(folder).tensors == whole.tensors

    (folder / "b.safetensors").unlink()
    refuses(folder, "names b.safetensors, which the folder does not have")
    index.write_text(json.dumps({"weight_map": {"x": "../other.safetensors"}}))
    refuses(folder, "no file name here")
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "a.safetensors", "y": "a.safetensors"}}))
    refuses(folder, "is not in this file")
    index.write_text("{}")
    refuses(folder, "no weight_map")


def test_a_whole_report(tmp_path: Path) -> None:
    report = inspect_model(make_model(tmp_path / "m"))
    assert report.problems == () and report.notes == ()
    assert report.geometry is not None and report.tokenizer == "tokenizer.json" and report.has_chat_template
    (tmp_path / "m" / "chat_template.jinja").unlink()
    assert "no chat template" in inspect_model(tmp_path / "m").notes[0]
    (tmp_path / "m" / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert inspect_model(tmp_path / "m").has_chat_template


def test_every_fault_is_listed(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", {"auto_map": {"AutoModel": "modeling_x.M", "AutoConfig": "configuration_x.C"}})
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "tokenizer.json").unlink()
    problems = inspect_model(folder).problems
    assert [problem.what.split(";")[0][:40] for problem in problems] == [
        "this model wants to run 2 Python files f",
        "is empty (0 bytes)",
        "has no tokenizer",
    ]
    assert inspect_model(folder).as_dict()["problems"][1]["where"].endswith("model.safetensors")


Change = Callable[[Path], object]


def weights(content: bytes) -> Change:
    return lambda folder: (folder / "model.safetensors").write_bytes(content)


def text(name: str, content: str) -> Change:
    return lambda folder: (folder / name).write_text(content)


def config(**fields: object) -> Change:
    """Change fields of config.json; None removes one."""
    values = {name: value for name, value in {**LLAMA, **fields}.items() if value is not None}
    return text("config.json", json.dumps(values))


def tensors(changes: dict[str, tuple[int, ...] | None]) -> Change:
    shapes = {name: shape for name, shape in {**llama_tensors(), **changes}.items() if shape is not None}
    return lambda folder: write_safetensors(folder / "model.safetensors", shapes)


def only(**files: str) -> Change:
    """Replace everything in the folder by `files` (two underscores stand for a dot)."""

    def change(folder: Path) -> None:
        for path in folder.iterdir():
            path.unlink()
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(text)

    return change


def pipe(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def dangling(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../../blobs/0123")


def cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def longer(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes() + bytes(10))


def wrong_kind(kind: str) -> Change:
    return lambda folder: write_safetensors(folder / "model.safetensors", llama_tensors(), kind)


CONFIG = json.dumps(LLAMA)
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 4976698672\n".format("0" * 64)

BAD_FOLDERS: dict[str, tuple[Change, str]] = {
    "adapter": (
        only(adapter_config__json='{"base_model_name_or_path": "org/base"}'),
        "adapter, not a model (made for org/base)",
    ),
    "adapter with a broken config": (only(adapter_config__json="{"), "is an adapter, not a model"),
    "only GGUF": (only(m__gguf="GGUF"), "only GGUF files, which cannot be fine-tuned; need safetensors"),
    "GGUF beside a config": (only(config__json=CONFIG, m__gguf="GGUF"), "only as GGUF"),
    "empty folder": (only(), "is empty"),
    "no config": (only(model__safetensors="x"), "no config.json"),
    "no weights": (only(config__json=CONFIG), "has no weights"),
    "pickles": (only(config__json=CONFIG, pytorch_model__bin="x"), "only as pickles (pytorch_model.bin)"),
    "other name": (only(config__json=CONFIG, consolidated__safetensors="x"), "neither model.safetensors nor"),
    "empty config": (text("config.json", ""), "is empty (0 bytes)"),
    "web page": (text("config.json", "<!DOCTYPE html><p>"), "is a web page"),
    "config is a list": (text("config.json", "[1]"), "is JSON but no object"),
    "config cut off": (text("config.json", '{"a": 1,\n "b'), "line 2, column 2"),
    "config too deep": (text("config.json", "[" * 100_000), "nested too deeply"),
    "config with a key twice": (text("config.json", '{"a": 1, "a": 2}'), "'a' is there twice"),
    "config in Latin-1": (lambda folder: (folder / "config.json").write_bytes(b'{"a": "\xe9"}'), "is not UTF-8"),
    "config is a pipe": (pipe("config.json"), "is a pipe, not a file"),
    "no model_type": (config(model_type=None), "has no model_type"),
    "number as text": (config(hidden_size="64"), "is '64'; it should be a whole number"),
    "size as bool": (config(vocab_size=True), "is True; it should be a whole number"),
    "no heads": (config(num_attention_heads=0), "is 0; it should be a whole number"),
    "negative": (config(num_hidden_layers=-2), "is -2; it should be"),
    "nonsense size": (config(hidden_size=10**30), "it should be a whole number from 1 to"),
    "infinite": (config(vocab_size=float("inf")), "is inf; it should be a whole number"),
    "missing size": (config(num_hidden_layers=None), "is missing"),
    "heads do not divide": (config(num_attention_heads=5, num_key_value_heads=5), "does not divide hidden_size 64"),
    "groups do not divide": (config(num_key_value_heads=3), "does not divide the 4 attention heads"),
    "not causal": (config(architectures=["BertForMaskedLM"]), "does not write text"),
    "encoder-decoder": (config(is_encoder_decoder=True), "is an encoder-decoder"),
    "reads images": (config(text_config={}), "reads more than text"),
    "own code": (
        config(auto_map={"AutoModel": "modeling_x.M"}),
        "wants to run 1 Python file from its folder (modeling_x.py)",
    ),
    "quantised": (config(quantization_config={"quant_method": "gptq"}), "already quantised (gptq)"),
    "hub kernel": (config(attn_implementation="org/kernel"), "asks for the downloaded kernel org/kernel"),
    "tied is text": (config(tie_word_embeddings="yes"), "is 'yes'"),
    "LFS pointer": (
        weights(POINTER.encode()),
        "Git LFS pointer, not the file itself (4,976,698,672 bytes expected, 135 found)",
    ),
    "weights are a page": (weights(b"\n<html>not found</html>"), "is a web page"),
    "no bytes": (weights(b""), "is empty (0 bytes)"),
    "five bytes": (weights(b"12345"), "is cut off: 5 bytes"),
    "header of 2^60": (weights((1 << 60).to_bytes(8, "little") + b"{}"), "claims 1,152,921,504,606,846,976 bytes"),
    "cut off": (cut_off, "is cut off: its tensors need"),
    "trailing bytes": (longer, "has 10 bytes after its last tensor"),
    "dangling link": (dangling, "is a link to ../../blobs/0123, which is not there"),
    "weights are a pipe": (pipe("model.safetensors"), "is a pipe, not a file"),
    "wrong shape": (
        tensors({"model.layers.1.mlp.up_proj.weight": (128, 60)}),
        "mlp.up_proj.weight is [128, 60], not [128, 64]",
    ),
    "too few layers": (config(num_hidden_layers=3), "for 2 of the 3 layers"),
    "no head": (tensors({"lm_head.weight": None}), "is absent from the weights"),
    "no embedding": (tensors({"model.embed_tokens.weight": None}), "no token embedding"),
    "integers": (wrong_kind("int8"), "is stored as I8: this model is already quantised"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer"),
    "tokenizer cut off": (text("tokenizer.json", '{"a": '), "is cut off: it does not end in }"),
    "tokenizer config broken": (text("tokenizer_config.json", "{"), "is not JSON"),
    "tokenizer with code": (
        text("tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["tok.T", null]}}'),
        "wants to run 1 Python file from its folder (tok.py)",
    ),
}


def refuses(folder: Path, words: str) -> Problem:
    """`folder`'s first problem, which says `words` and names a place and a fix."""
    problem = inspect_model(folder).problems[0]
    assert words in problem.what
    assert problem.where and problem.fix
    return problem


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folders_are_explained(tmp_path: Path, case: str) -> None:
    change, words = BAD_FOLDERS[case]
    folder = make_model(tmp_path / "m")
    change(folder)
    problem = refuses(folder, words)
    if "tokenizer" not in case:
        with pytest.raises(Problem) as raised:
            read_geometry(folder)
        assert raised.value.as_dict() == problem.as_dict()


def test_places_that_are_no_folder(tmp_path: Path) -> None:
    refuses(tmp_path / "absent", "no such folder")
    refuses(Path("nul\0byte"), "no such folder")
    model = make_model(tmp_path / "org" / "a\x1b[31mb")
    assert "\x1b" not in refuses(model / "config.json", "is a file").where
    assert "\x1b" not in refuses(tmp_path / "org", "folders in it do").fix
    (tmp_path / "loop").symlink_to("loop")
    refuses(tmp_path / "loop", "")


HEADERS = st.one_of(
    st.binary(max_size=200),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode()),
    st.dictionaries(
        st.text(max_size=4),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "BF16", "F4", "X", ""]) | st.none(),
                "shape": st.lists(st.integers(-1, 4) | st.integers(2**60, 2**70), max_size=10),
                "data_offsets": st.lists(st.integers(-4, 40) | st.just(2**70), min_size=1, max_size=3),
            }
        ),
        max_size=3,
    ).map(lambda value: json.dumps(value).encode()),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(HEADERS, st.binary(max_size=32), st.none() | st.integers(0, 2**64 - 1))
def test_any_header_is_read_or_explained(tmp_path: Path, header: bytes, data: bytes, claimed: int | None) -> None:
    path = tmp_path / "any.safetensors"
    write_raw(path, header, data, claimed)
    try:
        found = read_header(path)
    except Problem as problem:
        assert problem.what and problem.fix
    else:
        assert sum(tensor.bytes for tensor in found.values()) == len(data) + len(header) - (
            len(header) if claimed is None else claimed
        )


VALUES = (
    st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats() | st.text(max_size=8) | st.just([]) | st.just({})
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(st.sampled_from([*LLAMA, "head_dim", "num_experts", "auto_map", "quantization_config"]), VALUES))
def test_any_config_is_read_or_explained(tmp_path: Path, changes: dict[str, object]) -> None:
    folder = tmp_path / "any"
    if not folder.exists():
        make_model(folder)
    (folder / "config.json").write_text(json.dumps({**LLAMA, **changes}))
    report = inspect_model(folder)
    assert all(problem.what and problem.fix for problem in report.problems)
    assert report.geometry is not None or report.problems
    json.dumps(report.as_dict())


def test_the_worst_header_takes_bounded_memory(tmp_path: Path) -> None:
    header = b'{"a":[' + b"{}," * ((8 << 20) // 3 - 10) + b"{}]}"
    write_raw(tmp_path / "worst.safetensors", header)
    write_raw(tmp_path / "huge.safetensors", b"{}" + bytes(9 << 20))
    code = (
        "import sys; from pathlib import Path; from profiles.shapes.safetensors_header import read_header\n"
        "from profiles.problem import Problem\n"
        "for name in sys.argv[1:]:\n"
        "    try: read_header(Path(name))\n"
        "    except Problem as problem: print(problem.what)\n"
        # not ru_maxrss, which begins with what the process that started this one had
        "status = Path('/proc/self/status').read_text()\n"
        "print(status.partition('VmHWM:')[2].split()[0])"
    )
    paths = [str(tmp_path / "worst.safetensors"), str(tmp_path / "huge.safetensors")]
    *told, peak_kib = subprocess.run(
        [sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert told[0] == "its entry in the header is no object" and "no model needs over" in told[1]
    assert int(peak_kib) < 500 * 1024
