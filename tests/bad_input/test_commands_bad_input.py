"""What people give by mistake, through the commands: status 2, where, what and a fix, never a traceback."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Finetui, Result

from engine.demo import HELD_OUT_FILE, MODEL_DIRECTORY, TRAIN_FILE

GOOD_ROW = {"messages": [{"role": "user", "content": "Call me."}, {"role": "assistant", "content": "{}"}]}
GOOD_LINE = json.dumps(GOOD_ROW) + "\n"
# Root may read and write everything; without these two capabilities it is an ordinary user in that respect.
AS_ORDINARY_USER = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.getuid() == 0 else ()


def assert_problem(result: Result, where: str, what: str) -> None:
    assert result.status == 2, result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    problem, _, fix = result.stderr.partition("\n  fix: ")
    assert where in problem
    assert what in problem
    assert fix.strip()


def rows(*values: object) -> str:
    return "".join(value if isinstance(value, str) else json.dumps(value) + "\n" for value in values)


def with_answer(answer: object) -> dict:
    return {"messages": [{"role": "user", "content": "Call me."}, {"role": "assistant", "content": answer}]}


DATA = {
    "empty": (b"", "is empty"),
    "only blank lines": (b"\n\n\n", "no rows"),
    "not UTF-8": (rows(GOOD_ROW).encode() + b'{"text": "caf\xe9"}\n', "UTF-8"),
    "half-written": (rows(GOOD_ROW, GOOD_ROW).encode()[:-20], "cut off"),
    "no objects": (rows([1, 2], "7\n").encode(), "line 1"),
    "no known fields": (rows({"foo": 1}).encode(), "columns that are known"),
    "an empty answer": (rows(with_answer("")).encode(), "line 1"),
    "no assistant": (rows({"messages": GOOD_ROW["messages"][:1]}).encode(), "line 1"),
    "single quotes": (b"{'text': 'a'}\n", "line 1"),
    "a web page": (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "compressed": (b"\x1f\x8b\x08\x00abcdefgh", "gzip"),
    "NUL bytes": (b'{"text": "\x00"}\n' * 3, "line 1"),
}


@pytest.mark.parametrize("case", DATA)
def test_data_files(finetui: Finetui, tmp_path: Path, case: str):
    content, what = DATA[case]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    assert_problem(finetui("inspect", path), str(path), what)
    assert_problem(finetui("train", "--model", MODEL_DIRECTORY, "--data", path), str(path), what)
    assert finetui("runs", "--json").json() == []


def test_a_name_that_is_no_text(finetui: Finetui, tmp_path: Path):
    path = tmp_path / os.fsdecode(b"r\xffws.jsonl")
    path.write_text(GOOD_LINE * 8)
    assert_problem(finetui("train", "--model", MODEL_DIRECTORY, "--data", path), "data.train", "is not UTF-8")
    model = shutil.copytree(MODEL_DIRECTORY, tmp_path / os.fsdecode(b"m\xff"))
    assert_problem(finetui("train", "--model", model, "--data", TRAIN_FILE), "model.path", "is not UTF-8")


def absent(path: Path) -> None:
    pass


def unreadable(path: Path) -> None:
    path.write_text(GOOD_LINE)
    path.chmod(0)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def link_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (absent, "no such file"),
        (unreadable, "permission"),
        (os.mkfifo, "regular file"),
        (dangling, "link"),
        (link_loop, "link"),
    ],
)
def test_data_paths(finetui: Finetui, tmp_path: Path, make: Callable[[Path], None], what: str):
    path = tmp_path / "rows.jsonl"
    make(path)
    result = finetui("inspect", path, before=AS_ORDINARY_USER)
    assert_problem(result, str(path), "")
    assert what in result.stderr.lower()
    result = finetui("train", "--model", MODEL_DIRECTORY, "--data", path, before=AS_ORDINARY_USER)
    assert_problem(result, str(path), "")
    assert what in result.stderr.lower()


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def truncate_weights(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(100_000)


def only_pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def change_config(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


MODELS = {
    "no config": (without("config.json"), "config.json"),
    "no weights": (without("model.safetensors"), "no weights"),
    "no tokenizer": (without("tokenizer.json"), "no tokenizer"),
    "truncated weights": (truncate_weights, "model.safetensors"),
    "only pickles": (only_pickles, "pickle"),
    "an empty config": (lambda folder: (folder / "config.json").write_text(""), "config.json"),
    "a config of text": (change_config(hidden_size="64"), "hidden_size"),
    "no heads": (change_config(num_attention_heads=0), "num_attention_heads"),
    "code of its own": (change_config(auto_map={"AutoModelForCausalLM": "modeling.Evil"}), "Python"),
    "a git-lfs pointer": (
        lambda folder: (folder / "model.safetensors").write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 6629824\n"
        ),
        "LFS",
    ),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL_DIRECTORY, tmp_path / "model"))


@pytest.mark.parametrize("case", MODELS)
def test_model_folders(finetui: Finetui, model: Path, case: str):
    spoil, what = MODELS[case]
    spoil(model)
    assert_problem(finetui("inspect", model), str(model), what)
    report = finetui("inspect", model, "--json")
    assert (report.status, bool(report.json()["problems"])) == (2, True)
    assert_problem(finetui("train", "--model", model, "--data", TRAIN_FILE), str(model), what)


def test_chats_need_a_chat_template(finetui: Finetui, model: Path, tmp_path: Path):
    (model / "chat_template.jinja").unlink()
    assert "template    none" in finetui("inspect", model).stdout
    spec = tmp_path / "spec.toml"
    spec.write_text(f'name = "a"\n[model]\npath = "{model}"\n[data]\ntrain = ["{TRAIN_FILE}"]\n')
    assert_problem(finetui("train", spec), str(model), "no chat template")
    proposed = finetui("train", "--model", model, "--data", TRAIN_FILE, "--dry-run").stdout
    assert re.search(r"# data\.chat_template +chatml +\S+", proposed), proposed


SPECS = {
    "an unknown key": ("[optimizer]\nlerning_rate = 1e-4\n", "optimizer.lerning_rate", "is not a setting"),
    "a negative rate": ("[optimizer]\nlearning_rate = -1e-4\n", "optimizer.learning_rate", "greater than 0"),
    "a rate as text": ('[optimizer]\nlearning_rate = "1e-4"\n', "optimizer.learning_rate", "valid number"),
    "no number": ("[optimizer]\nlearning_rate = nan\n", "optimizer.learning_rate", "finite"),
    "a half section": ("[optimizer\n", "spec.toml", "not valid TOML"),
    "a missing model": ('[model]\npath = "nowhere"\n', "nowhere", "no such folder"),
}


@pytest.mark.parametrize("case", SPECS)
def test_specs(finetui: Finetui, tmp_path: Path, case: str):
    text, where, what = SPECS[case]
    head = f'name = "clinic"\n[data]\ntrain = ["{TRAIN_FILE}"]\n'
    model = "" if "[model]" in text else f'[model]\npath = "{MODEL_DIRECTORY}"\n'
    path = tmp_path / "spec.toml"
    path.write_text(head + model + text)
    assert_problem(finetui("train", path), where, what)
    assert finetui("runs", "--json").json() == []


@pytest.mark.parametrize(
    ("arguments", "where", "what"),
    [
        (["train", "nowhere.toml"], "nowhere.toml", "no such file"),
        (["train", "spec.toml", "--model", "m"], "--model", "together with a spec file"),
        (["train", "--model", MODEL_DIRECTORY], "finetui train", "--data"),
        (
            ["train", "--model", MODEL_DIRECTORY, "--data", TRAIN_FILE, "--held-out", TRAIN_FILE],
            "",
            "held_out",
        ),
        (["train", "--model", MODEL_DIRECTORY, "--data", TRAIN_FILE, "--name", "a b"], "name", "a b"),
        (
            ["train", "--model", MODEL_DIRECTORY, "--data", TRAIN_FILE, "--set", "rank"],
            "--set rank",
            "KEY=VALUE",
        ),
        (
            ["train", "--model", MODEL_DIRECTORY, "--data", TRAIN_FILE, "--set", "method.rnak=8"],
            "method.rnak",
            "is not a setting",
        ),
        (["demo", "--set", "method.rank=0"], "method.rank", "greater than or equal to 1"),
        (["inspect", "nowhere"], "nowhere", "no such file"),
        (["show", "nothing"], "nothing", "no such run"),
        (["watch", "/"], "/", "is not a run's folder"),
        (["stop", "latest"], "latest", "no such run"),
        (["resume", "latest"], "latest", "no such run"),
        (["chat", "latest", "--once", "hello"], "latest", "no such run"),
        (["chat", "latest", "--once", " "], "--once", "no question"),
        (["chat", "latest", "--temperature", "-1"], "--temperature", "-1"),
        (["chat", "latest", "--max-new-tokens", "0"], "--max-new-tokens", "0"),
        (["export", "latest", "--to", "adapter"], "latest", "no such run"),
    ],
)
def test_arguments(finetui: Finetui, arguments: list[object], where: str, what: str):
    assert_problem(finetui(*arguments), where, what)


@pytest.mark.parametrize("make", ["a file", "read-only", "under a file"])
def test_homes_that_cannot_be_written_to(tmp_path: Path, make: str):
    home = tmp_path / "home"
    if make == "a file":
        home.write_text("")
    elif make == "read-only":
        home.mkdir(mode=0o500)
    else:
        (tmp_path / "file").write_text("")
        home = tmp_path / "file" / "home"
    finetui = Finetui(home)
    for arguments in (["demo"], ["train", "--model", MODEL_DIRECTORY, "--data", HELD_OUT_FILE]):
        assert_problem(finetui(*arguments, before=AS_ORDINARY_USER), str(home), "")


def test_a_full_home(tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir()
    fill = 'mount -t tmpfs -o size=16k none "$0" && { head -c 16384 /dev/zero >"$0/full"; exec "$@"; }'
    small_disk = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", fill, str(home))
    if subprocess.run([*small_disk, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    assert_problem(Finetui(home)("demo", before=small_disk), str(home), "full")
