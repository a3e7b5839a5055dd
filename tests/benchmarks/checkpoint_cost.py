"""What a verified checkpoint costs: seconds for each GiB, beside what others write without a look back; and memory.

    python tests/benchmarks/checkpoint_cost.py [MIB_OF_PARAMETERS] [FOLDER]

One model of random weights with AdamW's state, three times as large as its parameters alone, is saved in turn by
finetui, by transformers' Trainer and by a plain torch.save into the same folder (FOLDER: on the disk that matters).
Neither of the others brings anything onto the disk or looks at it again; what bringing it there alone costs is told,
too. The parts of our save are timed each for itself; it writes one file while it reads another back, so that it may
take less than their sum. All write new files: what was there is removed, and what is left to be written is written,
before the clock starts. The best of five rounds: whatever else the machine does adds to all of them.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.offline import set_offline

set_offline()
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as in a run's worker

import torch  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments  # noqa: E402

from engine.run.checkpoints.verifying import damage, read_back  # noqa: E402
from engine.run.durable_files import sync  # noqa: E402
from engine.train.checkpoints import Progress, save_checkpoint  # noqa: E402
from engine.train.checkpoints.finite import require_finite  # noqa: E402
from engine.train.checkpoints.optimizer_state import optimizer_state  # noqa: E402
from engine.train.checkpoints.tensor_file import write_tensors  # noqa: E402

ROUNDS = 5
GIB, MIB = 1 << 30, 1 << 20


def main(parameter_mib: int, folder: Path) -> None:
    torch.manual_seed(0)
    trainer = _trainer(parameter_mib * MIB, folder / "trainer")
    trainer.train()  # one step, so that the optimizer has a state
    model, optimizer = trainer.model, trainer.optimizer
    parameters = dict(model.named_parameters())
    tensors = parameters | optimizer_state(optimizer, parameters)[0]
    gib = sum(tensor.nbytes for tensor in tensors.values()) / GIB
    print(f"{gib:.2f} GiB in {len(tensors)} tensors, {torch.get_num_threads()} threads, in {folder}")

    states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    steps = iter(range(1, 1 << 20))
    last: list[Path] = []

    def ours() -> None:
        saved = save_checkpoint(folder / "ours", Progress(next(steps), 1, None, None), parameters, optimizer, keep=1)
        last[:] = [saved.path]

    def plain(*, synced: bool) -> None:
        torch.save(states, folder / "plain.pt")
        if synced:
            sync(folder / "plain.pt")

    def trainers() -> None:
        trainer.state.global_step = next(steps)
        trainer._save_checkpoint(model, None)

    def written() -> None:
        write_tensors(folder / "tensors", tensors)

    # What each would write over, or may not.
    files: dict[str, Path] = dict.fromkeys(("torch.save", "torch.save, then fsync"), folder / "plain.pt")
    files["write, hash and bring onto the disk"] = folder / "tensors"

    parts: dict[str, Callable[[], Any]] = {
        "look for what is not finite": lambda: require_finite(tensors),
        "write, hash and bring onto the disk": written,
        "read back from the disk and hash": lambda: read_back(folder / "tensors", from_disk=True),
    }
    whole: dict[str, Callable[[], Any]] = {
        "finetui: save": ours,
        "finetui: verify before a resume": lambda: damage(last[0]),
        "Trainer: save": trainers,
        "torch.save": lambda: plain(synced=False),
        "torch.save, then fsync": lambda: plain(synced=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in (*parts, *whole)}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in seconds}
    memory: dict[str, int] = {}
    for _ in range(ROUNDS):
        for name, action in (*parts.items(), *whole.items()):
            if name in files:
                files[name].unlink(missing_ok=True)
            os.sync()  # what an earlier one left to be written is not this one's
            before = _reset_peak()
            begun, cpu_begun = time.perf_counter(), time.process_time()
            action()
            seconds[name].append(time.perf_counter() - begun)
            cpu_seconds[name].append(time.process_time() - cpu_begun)
            memory[name] = max(memory.get(name, 0), _peak_bytes() - before)
    best = {name: min(each) / gib for name, each in seconds.items()}
    for name, value in best.items():
        cpu = min(cpu_seconds[name]) / gib
        print(
            f"{name:38} {value:6.2f} s/GiB, {cpu:5.2f} of a processor   {memory[name] / MIB:8.0f} MiB more at its peak"
        )
    largest = max(tensor.nbytes for tensor in tensors.values()) / MIB
    print(f"the largest tensor has {largest:.0f} MiB")
    for other in ("Trainer: save", "torch.save", "torch.save, then fsync"):
        print(f"finetui's save takes {best['finetui: save'] / best[other]:.2f} times as long as {other}")


def _trainer(parameter_bytes: int, folder: Path) -> Trainer:
    """transformers' Trainer with a Llama of about so many bytes in float32, as it comes."""
    hidden = 1024
    per_layer = 4 * (4 * hidden * hidden + 3 * hidden * 4 * hidden)
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=max(1, parameter_bytes // per_layer),
        num_attention_heads=8,
    )
    rows = [{"input_ids": torch.arange(8), "labels": torch.arange(8)}]
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=1,
        save_strategy="no",
        save_total_limit=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        logging_strategy="no",
    )
    return Trainer(model=LlamaForCausalLM(config), args=arguments, train_dataset=rows)


def _reset_peak() -> int:
    """Have the kernel measure this process's peak anew. The bytes it holds now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak_bytes() -> int:
    return _status("VmHWM")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) << 10
    raise KeyError(field)


if __name__ == "__main__":
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as place:
        main(size, Path(place))
