"""Exports through real child processes, loaded again with the libraries' own calls."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny

from engine.export import request
from engine.export.request import export_run
from engine.export.staging import staged
from engine.modules import module_command, module_environment
from profiles.problem import Problem

MANY_FILES = 400
SLOW = pytest.mark.slow


def logits(model: Any, path: Path) -> Any:
    """In float32, of a fixed text that the tokenizer in `path` reads."""
    import torch
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(path)("The patient came in on Monday.", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return model.eval()(ids).logits.float()


def tuned_logits(run: Any, adapter: Path, dtype: str = "float32") -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(run.spec().model.path, dtype=dtype)
    plain = logits(base, adapter)
    tuned = logits(PeftModel.from_pretrained(base, adapter), adapter)
    assert (plain - tuned).abs().max() > 0.5  # the adapter does something
    return tuned


@pytest.mark.parametrize(
    ("family", "tied"),
    [
        ("llama", True),
        pytest.param("gemma3", True, marks=SLOW),
        pytest.param("mixtral", False, marks=SLOW),
        *(pytest.param(*each, marks=SLOW) for each in (("llama", False), ("qwen3", True), ("gpt2", True))),
    ],
)
def test_merged_gives_the_logits_of_base_and_adapter(tmp_path: Path, family: Any, tied: bool) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = tiny.make_run(tmp_path, model=tiny.make_model(tmp_path / "base", family, tied=tied))
    told: list[tuple[str, int, int]] = []
    into = export_run(run, "merged", tmp_path / "new" / "merged", lambda *what: told.append(what))
    assert into == tmp_path / "new" / "merged"
    merged = AutoModelForCausalLM.from_pretrained(into, use_safetensors=True)
    assert merged.config.tie_word_embeddings is tied
    expected = tuned_logits(run, run.outputs / "adapter")
    torch.testing.assert_close(logits(merged, into), expected, atol=2e-4, rtol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(into)
    assert tokenizer.chat_template == tiny.TEMPLATES["chatml"]
    # The chat template's end of turn ends an answer too, though the base's settings name only the end of text.
    assert merged.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids([tiny.TURN_END, tiny.DOCUMENT_END])
    said = [
        "reading the base model",
        "merging the adapter",
        "writing the merged model",
        "reading back what was written",
    ]
    assert set(said) == {each[0] for each in told}
    assert [path.name for path in into.parent.iterdir()] == ["merged"]


@pytest.mark.parametrize("targets", [["lm_head", "q_proj"], pytest.param(["embed_tokens"], marks=SLOW)])
def test_tied_weights_are_untied_when_the_adapter_changes_only_one_use_of_them(
    tmp_path: Path, targets: list[str]
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    run = tiny.make_run(tmp_path, targets=targets)
    merged = AutoModelForCausalLM.from_pretrained(export_run(run, "merged", tmp_path / "merged"))
    expected = tuned_logits(run, run.outputs / "adapter")
    torch.testing.assert_close(logits(merged, tmp_path / "merged"), expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=SLOW)])
def test_merged_keeps_the_precision_of_the_base(tmp_path: Path, dtype: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    run = tiny.make_run(tmp_path, model=tiny.make_model(tmp_path / "base", dtype=dtype))
    merged = AutoModelForCausalLM.from_pretrained(export_run(run, "merged", tmp_path / "merged"))
    assert {parameter.dtype for parameter in merged.parameters()} == {getattr(torch, dtype)}
    # Against float32 the merged weights are off by their own rounding, 2^-9 or 2^-12 of each.
    expected = tuned_logits(run, run.outputs / "adapter")
    error = (logits(merged.float(), tmp_path / "merged") - expected).abs().max() / expected.abs().max()
    assert error < {"bfloat16": 0.05, "float16": 0.01}[dtype]


def test_qlora_is_merged_into_the_unquantised_base(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    run = tiny.make_run(tmp_path, "qlora")
    into = export_run(run, "merged", tmp_path / "merged")
    assert "quantization_config" not in json.loads((into / "config.json").read_text())
    merged = AutoModelForCausalLM.from_pretrained(into)
    expected = tuned_logits(run, run.outputs / "adapter")
    torch.testing.assert_close(logits(merged, into), expected, atol=2e-4, rtol=1e-4)
    assert "merged into the unquantised ones" in (into / "README.md").read_text()


def test_an_adapter_is_copied_as_it_is_with_tokenizer_and_card(tmp_path: Path) -> None:
    import torch
    from transformers import AutoTokenizer

    run = tiny.make_run(tmp_path)
    empty = tmp_path / "there already"
    empty.mkdir()
    into = export_run(run, "adapter", empty)
    ours = run.outputs / "adapter"
    weights = "adapter_model.safetensors"
    assert (into / weights).read_bytes() == (ours / weights).read_bytes()
    settings, our_settings = (json.loads((each / "adapter_config.json").read_text()) for each in (into, ours))
    assert settings == our_settings | {"base_model_name_or_path": "base"}  # the folder's name, not its path
    torch.testing.assert_close(tuned_logits(run, into), tuned_logits(run, ours), atol=0, rtol=0)
    assert AutoTokenizer.from_pretrained(into).chat_template == tiny.TEMPLATES["chatml"]
    card = (into / "README.md").read_text()
    assert "| Held-out loss | 6.100 before, 4.200 after |" in card
    assert str(tmp_path) not in card  # a card travels further than a machine's paths should


def test_a_full_run_is_exported_as_the_model_it_is(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    run = tiny.make_run(tmp_path, "full")
    into = export_run(run, "merged", tmp_path / "merged")
    expected = logits(AutoModelForCausalLM.from_pretrained(run.outputs / "model"), into)
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(into), into), expected, atol=0, rtol=0)
    with pytest.raises(Problem, match="has no adapter"):
        export_run(run, "adapter", tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_nothing_that_is_there_is_overwritten(tmp_path: Path) -> None:
    run = tiny.make_run(tmp_path)
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "thesis.txt").write_text("the only copy")
    (tmp_path / "file").write_text("x")
    for place, found in (
        (occupied, "is not empty"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "x", "cannot be used"),
    ):
        with pytest.raises(Problem, match=found):
            export_run(run, "adapter", place)
    assert [path.name for path in occupied.iterdir()] == ["thesis.txt"]


def test_what_cannot_be_exported_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    run = tiny.make_run(tmp_path)
    weights = run.spec().model.path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Problem, match=r"model\.safetensors"):
        export_run(run, "merged", tmp_path / "merged")
    weights.write_bytes(whole)
    (run.outputs / "adapter").rename(tmp_path / "elsewhere")
    with pytest.raises(Problem, match="has no tuned adapter yet"):
        export_run(run, "merged", tmp_path / "merged")
    assert leftovers(tmp_path) == []


def test_an_adapter_that_is_not_finite_is_not_merged(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    run = tiny.make_run(tmp_path)
    path = run.outputs / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values())).fill_(float("nan"))
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(Problem, match="cannot be merged"):
        export_run(run, "merged", tmp_path / "merged")
    assert leftovers(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/shm").is_dir(), reason="mounting a small disk needs root")
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    run = tiny.make_run(tmp_path)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        with pytest.raises(Problem, match="free, and the export takes"):
            export_run(run, "merged", disk / "merged")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_an_export_ended_half_way_leaves_nothing_at_the_target(tmp_path: Path, ending: signal.Signals) -> None:
    run, into = tiny.make_run(tmp_path, "full"), tmp_path / "merged"
    # Each file is told of, and the pipe holds a few dozen such lines: so an export that is not read from waits.
    for index in range(MANY_FILES):
        (run.outputs / "model" / f"extra-{index:04}.txt").write_text("x")
    expected = {path.name for path in (run.outputs / "model").iterdir()} | {"README.md"}
    for lines in (1, 50, 100):
        child = start_export(run, into)
        read_lines(child, lines)
        [staging] = leftovers(tmp_path)
        assert len(list(staging.iterdir())) >= lines - 1
        end(child, ending)
        assert not into.exists()
    # What a killed one left beside the target goes with the next export; those asked to end leave nothing.
    assert bool(leftovers(tmp_path)) is (ending == signal.SIGKILL)
    for delay_seconds in (0.0, 0.001, 0.003, 0.01, 0.03):  # from the last file on: onto the disk, and renamed
        child = start_export(run, into)
        read_lines(child, len(expected) - 1)
        time.sleep(delay_seconds)
        end(child, ending)
        if into.exists():
            assert {path.name for path in into.iterdir()} == expected
            shutil.rmtree(into)
    export_run(run, "merged", into)
    assert leftovers(tmp_path) == [into]


def test_of_two_at_once_the_first_that_is_whole_is_the_export(tmp_path: Path) -> None:
    target = tmp_path / "merged"
    with pytest.raises(Problem, match="not empty"), staged(target, 0) as slower:
        (slower / "slower").touch()
        with staged(target, 0) as faster:
            (faster / "faster").touch()
        assert (slower / "slower").exists()
    assert leftovers(tmp_path) == [target] and [path.name for path in target.iterdir()] == ["faster"]


# Its tokenizer is never there: it waits for its end instead.
HALF_MERGED = """
import signal, sys
from engine.export import __main__, merge
merge.copy_files = lambda *_: signal.pause()
sys.exit(__main__.main())
"""


def test_a_merge_killed_while_it_runs_is_a_problem_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny.make_run(tmp_path)
    command = [sys.executable, "-P", "-c", HALF_MERGED]
    monkeypatch.setattr(request, "module_command", lambda _, *arguments: [*command, *arguments])
    before = children_of(os.getpid())

    def kill(detail: str, done: int, total: int) -> None:
        if detail == "writing the merged model":
            for child in children_of(os.getpid()) - before:
                os.kill(child, signal.SIGKILL)

    with pytest.raises(Problem, match=r"killed from outside \(SIGKILL\)"):
        export_run(run, "merged", tmp_path / "merged", kill)
    assert leftovers(tmp_path) == []


def test_the_asking_side_imports_no_torch() -> None:
    script = "import engine.export.request, engine.serve.session, sys; print('torch' in sys.modules)"
    output = subprocess.check_output([sys.executable, "-c", script], env=module_environment(), text=True)
    assert output.strip() == "False"


def start_export(run: Any, into: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        module_command("engine.export", str(run.path), "--to", "merged", "--into", str(into)),
        stdout=subprocess.PIPE,
        env=module_environment(),
        text=True,
    )
    assert child.stdout is not None
    fcntl.fcntl(child.stdout, fcntl.F_SETPIPE_SZ, 4096)
    return child


def read_lines(child: subprocess.Popen[str], count: int) -> None:
    assert child.stdout is not None
    for _ in range(count):
        assert json.loads(child.stdout.readline())["kind"] == "progress"


def end(child: subprocess.Popen[str], ending: signal.Signals) -> None:
    child.send_signal(ending)
    child.communicate()


def children_of(parent: int) -> set[int]:
    return {int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()}


def leftovers(folder: Path) -> list[Path]:
    """The target "merged" itself and whatever an export of it put beside it."""
    return [path for path in folder.iterdir() if "merged" in path.name]
