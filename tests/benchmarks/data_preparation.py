"""Rows and tokens a second prepared from a JSONL file, and the memory of all processes, against `datasets.map`.

Both get the same file, the same tokenizer of 32,000 tokens and the same number of processes. finetui marks the
answers, splits, counts and keeps what it made. The peer does it in two ways: "plain" applies the chat template to each
row and tokenises the batch, without marks; "masked" has transformers mark the answers, which is what corresponds.
Seconds are from the opened tokenizer to the rows that training can take, and of the whole process, imports included.
Memory is the largest sum over all processes, as RSS (pages that processes share count in each) and as PSS (shared
ones count once). On a machine that others use too, compare CPU seconds, of all processes together; with --times the
ways take turns, and the fastest of each counts. Then a preparation that is complete is asked for again, and one that
was killed half-way is gone on with.

With --repeat the file is the same rows many times over, of which each chunk is tokenised once: reading, hashing and
assembling of a file as large as the disk allows, in minutes.

    python tests/benchmarks/data_preparation.py [--megabytes 200] [--family llama2] [--times 3]
        [--peer-python /tmp/peers/datasets/bin/python]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

Measured = tuple[dict[str, Any], float, float]
"""What a process said, and the largest RSS and PSS of it and its children, in bytes."""

FAMILIES = {"chatml": "chatml", "llama2": "mistral", "gemma": "gemma"}
"""For each kind of tokenizer, the family in tests/chat_families.py: byte-level, SentencePiece's with a space put in
front, and without."""

TEMPLATES = {
    "chatml": """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}\
{% if message['role'] == 'assistant' %}BEFORE{{ message['content'] + '<|im_end|>' }}AFTER{{ '\\n' }}\
{% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
    "llama2": """{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}\
{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}BEFORE{{ ' ' + message['content'] + eos_token }}AFTER\
{% endif %}{% endfor %}""",
    "gemma": """{{ bos_token }}{% for message in messages %}\
{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}{{ '<start_of_turn>' + role + '\\n' }}\
{% if role == 'model' %}BEFORE{{ message['content'] | trim + '<end_of_turn>' }}AFTER{{ '\\n' }}\
{% else %}{{ message['content'] | trim + '<end_of_turn>\\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}""",
}

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

PEER = """
import json, sys, time
file, model, processes, cache, way = sys.argv[1:]
from datasets import load_dataset
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(model)
def masked(batch):
    done = tokenizer.apply_chat_template(batch["messages"], return_dict=True, return_assistant_tokens_mask=True)
    return {"input_ids": done["input_ids"], "assistant_masks": done["assistant_masks"]}
def plain(batch):
    texts = [tokenizer.apply_chat_template(each, tokenize=False) for each in batch["messages"]]
    return {"input_ids": tokenizer(texts, add_special_tokens=False)["input_ids"]}
began = time.monotonic()
rows = load_dataset("json", data_files=file, split="train", cache_dir=cache)
loaded = time.monotonic()
tokenise = {"plain": plain, "masked": masked}[way]
rows = rows.map(tokenise, batched=True, num_proc=int(processes), remove_columns=rows.column_names)
done = time.monotonic()
import pyarrow.compute as pc
tokens = sum(pc.sum(pc.list_value_length(chunk)).as_py() for chunk in rows.data.column("input_ids").chunks)
print(json.dumps({"rows": len(rows), "tokens": tokens, "seconds": done - began, "reading_seconds": loaded - began}))
"""

OURS = """
import json, sys, time
from pathlib import Path
from engine.data.prepare.preparing import prepare
from engine.data.tokens.loading import load_text_tokenizer
from engine.spec import parse_spec
file, model, processes = sys.argv[1:]
tokenizer = load_text_tokenizer(Path(model))
spec = parse_spec({"name": "x", "model": {"path": model}, "data": {"train": [file], "sequence_length": 4096}}, "x").data
began, assembling = time.monotonic(), [0.0]
def report(progress):
    assembling[0] = time.monotonic()
data = prepare(spec, tokenizer, report, workers=int(processes))
done = time.monotonic()
print(json.dumps({
    "rows": sum(source.rows for source in data.sources),
    "tokens": int(data.train.lengths.sum() + data.held_out.lengths.sum()),
    "seconds": done - began,
    "assembly_seconds": done - assembling[0],
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200, help="size of the file that is made")
    parser.add_argument("--repeat", type=int, default=1, help="how often those megabytes come in the file")
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--times", type=int, default=1, help="how often each way is measured")
    parser.add_argument("--family", default="chatml", choices=FAMILIES, help="of the tokenizer and its template")
    parser.add_argument("--peer-python", help="a Python that has datasets and transformers; without it no comparison")
    parser.add_argument("--folder", type=Path, help="where the file and the caches go, instead of a temporary folder")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="finetui-preparation-"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = make_file(folder, arguments.megabytes * 10**6, arguments.repeat)
        model = make_model(folder, arguments.family)
        print(f"{file.stat().st_size / 1e9:.2f} GB of JSONL on {os.cpu_count()} cores")
        print(f"{'':27}{'seconds':>9}{'whole':>8}{'CPU s':>8}{'rows/s':>10}{'tokens/s':>12}{'RSS MB':>9}{'PSS MB':>9}")
        for processes in arguments.processes:
            ways = ["finetui", *(("plain", "masked") if arguments.peer_python else ())]
            taken: dict[str, list[Measured]] = {way: [] for way in ways}
            for _ in range(arguments.times):
                for way in ways:
                    if way == "finetui":
                        process = ours(folder, file, model, processes, cold=True)
                    else:
                        process = peers(arguments.peer_python, folder, file, model, processes, way)
                    taken[way].append(measured(process))
            told = fastest(taken["finetui"])
            line(f"finetui, {processes} processes", *told)
            for way in ways[1:]:
                peer = fastest(taken[way])
                line(f"datasets {way}, {processes} processes", *peer)
                print(
                    f"{'':27}{peer[0]['seconds'] / told[0]['seconds']:.1f} x as fast, "
                    f"{peer[0]['whole'] / told[0]['whole']:.1f} x with start-up, "
                    f"{told[0]['cpu'] / peer[0]['cpu']:.2f} of its CPU seconds, "
                    f"{told[1] / peer[1]:.2f} of its RSS, {told[2] / peer[2]:.2f} of its PSS"
                )
        processes = max(arguments.processes)
        again, *memory = measured(ours(folder, file, model, processes, cold=False))
        line("finetui, from its cache", again, *memory)
        line("finetui, after SIGKILL", *measured(killed_half_way(folder, file, model, processes, told[0]["seconds"])))
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)


def line(name: str, result: dict, rss: float, pss: float) -> None:
    seconds = result["seconds"]
    rates = f"{result['rows'] / seconds:>10,.0f}{result['tokens'] / seconds:>12,.0f}"
    times = f"{name:<27}{seconds:>9.1f}{result['whole']:>8.1f}{result['cpu']:>8.1f}"
    print(f"{times}{rates}{rss / 1e6:>9,.0f}{pss / 1e6:>9,.0f}", flush=True)


def fastest(taken: list[Measured]) -> Measured:
    """The least seconds, whole seconds and CPU seconds that any of the runs took, and the least memory."""
    least = {name: min(told[name] for told, _, _ in taken) for name in ("seconds", "whole", "cpu")}
    return taken[0][0] | least, min(rss for _, rss, _ in taken), min(pss for _, _, pss in taken)


def peers(python: str, folder: Path, file: Path, model: Path, processes: int, way: str) -> subprocess.Popen[str]:
    cache = folder / "peer-cache"
    shutil.rmtree(cache, ignore_errors=True)
    model = folder / f"{model.name}-masked" if way == "masked" else model
    return start([python, "-c", PEER, file, model, str(processes), cache, way], {})


def ours(folder: Path, file: Path, model: Path, processes: int, *, cold: bool) -> subprocess.Popen[str]:
    if cold:
        shutil.rmtree(folder / "home" / "cache" / "prepared", ignore_errors=True)
    root = Path(__file__).resolve().parents[2]
    environment = {"FINETUI_HOME": str(folder / "home"), "PYTHONPATH": str(root)}
    return start([sys.executable, "-c", OURS, file, model, str(processes)], environment)


def killed_half_way(folder: Path, file: Path, model: Path, processes: int, seconds: float) -> subprocess.Popen[str]:
    """A preparation that goes on where one was killed after half of the time that it takes."""
    first = ours(folder, file, model, processes, cold=True)
    time.sleep(seconds / 2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    return ours(folder, file, model, processes, cold=False)


def start(command: list, environment: dict[str, str]) -> subprocess.Popen[str]:
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.Popen(
        list(map(str, command)),
        env=os.environ | offline | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def measured(process: subprocess.Popen[str]) -> Measured:
    """What the process said, and the largest RSS and PSS of it and its children together, in bytes."""
    rss = pss = 0.0
    cpu_before, began = cpu_seconds(), time.monotonic()
    parent = psutil.Process(process.pid)
    while process.poll() is None:
        sums = [0, 0]
        try:
            family = [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            break
        for each in family:
            try:
                memory = each.memory_full_info()
            except psutil.Error:
                continue
            sums[0] += memory.rss
            sums[1] += memory.pss
        rss, pss = max(rss, sums[0]), max(pss, sums[1])
        time.sleep(0.25)
    assert process.stdout is not None
    told = json.loads(process.stdout.read().strip().splitlines()[-1])
    return told | {"cpu": cpu_seconds() - cpu_before, "whole": time.monotonic() - began}, rss, pss


def cpu_seconds() -> float:
    """Of all processes that this one has waited for, and those that they waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def make_model(folder: Path, family: str) -> Path:
    """A folder with a tokenizer of 32,000 tokens and a chat template, and beside it one whose template marks what the
    model writes, as transformers wants it."""
    from tokenising import large_tokenizer, library_text

    path = folder / family
    if not path.exists():
        tokenizer = large_tokenizer(FAMILIES[family], library_text(), folder / "tokenizers")
        for where, (before, after) in {"": ("", ""), "-masked": ("{% generation %}", "{% endgeneration %}")}.items():
            tokenizer.chat_template = TEMPLATES[family].replace("BEFORE", before).replace("AFTER", after)
            tokenizer.save_pretrained(folder / f"{family}{where}")
    return path


def make_file(folder: Path, size_bytes: int, repeat: int) -> Path:
    """Conversations of one to three turns made of passages from Python's library, about a kilobyte a row."""
    from engine.data.files import chunks_of
    from engine.data.prepare.gather import TARGET_BYTES
    from engine.data.source import Source

    path = folder / f"rows-{size_bytes}-{repeat}.jsonl"
    if path.exists():
        return path
    written = 0
    with path.open("w", encoding="utf-8") as file:
        for row in conversations():
            written += file.write(row)
            if written >= size_bytes:
                break
    if repeat > 1:
        # Of whole chunks, so that every repetition is cut in the same places.
        with chunks_of(Source(path), TARGET_BYTES) as chunks:
            whole_bytes = sum([chunk.size_bytes for chunk in chunks][:-1])
        rows = path.read_bytes()[:whole_bytes]
        with path.open("wb") as file:
            for _ in range(repeat):
                file.write(rows)
    return path


def conversations() -> Iterator[str]:
    from tokenising import library_text

    draw = random.Random(0)
    words = " ".join(library_text())
    number = 0
    while True:
        messages = []
        for turn in range(draw.randint(1, 3)):
            for role, longest in (("user", 220), ("assistant", 520)):
                begins, length = draw.randrange(len(words) - 1000), draw.randint(20, longest)
                text = f"{number}.{turn} {words[begins : begins + length]}"
                messages.append({"role": role, "content": text})
        number += 1
        yield json.dumps({"messages": messages}, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
