"""Whether what trains on this machine's GPU trains inside the seal too, and what that costs.

    .venv/bin/python tests/benchmarks/gpu/seal_on_gpu.py [--steps 150]         some three minutes
    .venv/bin/python tests/benchmarks/gpu/seal_on_gpu.py --device cpu          the same way through without a GPU
    .venv/bin/python tests/benchmarks/gpu/seal_on_gpu.py --only driver --seal best     one of them alone, one way

First single things (the driver's own calls, torch.compile, bitsandbytes), then whole runs of a small random Llama by
the real engine: bf16 LoRA, QLoRA, 8-bit Adam. Each without the seal, then within it. Where one fails sealed alone, its
errors are printed, and, where strace is installed, each call that was refused there and not outside. Ends with 1 then,
and with 2 where this machine lacks a layer, so that the seal was tried in part only.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import tiny  # noqa: E402
from training import make_spec, write_chats  # noqa: E402
from waiting import events_of, wait_until  # noqa: E402

from engine.modules import module_environment  # noqa: E402
from engine.run.launch import launch  # noqa: E402
from engine.run.liveness import liveness  # noqa: E402
from engine.run.telemetry.reading import read_state  # noqa: E402
from engine.seal.ability import ability  # noqa: E402
from engine.seal.policy.devices import gpu_devices  # noqa: E402
from engine.seal.policy.places import computing_places, reading_places  # noqa: E402
from engine.seal.request import Level  # noqa: E402
from engine.seal.sealing import start_sealed  # noqa: E402

SINGLE = ("driver", "compile", "bitsandbytes")
RUNS: dict[str, dict[str, dict[str, Any]]] = {
    "bf16-lora": {},
    "qlora": {"method": {"kind": "qlora"}},
    "8-bit-adam": {"optimizer": {"kind": "adamw_8bit"}},
}
# Of a run that hangs, nobody waits longer; the slowest start of a driver and of libraries is told apart from that.
LONGEST_SECONDS = 240.0
# Those before it are slower for reasons of their own: kernels are looked up, the allocator grows.
WARM_STEPS = 10
REFUSED = r"E(?:ACCES|PERM|ROFS|NOSYS|AFNOSUPPORT|NOENT|NXIO)"


@dataclass(frozen=True)
class Try:
    """How one thing went, one way. `text` is for people: what was measured, or why it failed."""

    works: bool
    text: str
    seconds: float = 0.0
    """Until it was done; of a run, until its first step."""
    tokens_per_second: float = 0.0
    seal: str = ""


def single(kind: str, device: str, level: Level, folder: Path) -> Try:
    since = time.monotonic()
    process, report = start_sealed(
        [sys.executable, "-P", str(HERE / "seal_work.py"), kind, device, *gpu_devices()],
        reading_places([HERE], write=[folder]) | computing_places(),
        level,
        env=module_environment(),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        output, errors = process.communicate(timeout=LONGEST_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return Try(False, f"did not end within {LONGEST_SECONDS:.0f} s")
    seconds = time.monotonic() - since
    text = "" if process.returncode == 0 else "\n".join(errors.strip().splitlines()[-6:])
    return Try(process.returncode == 0, text or output.strip(), seconds, seal=", ".join(report.held))


def whole_run(kind: str, folder: Path, level: Level, steps: int) -> Try:
    train = {"max_steps": steps, "micro_batch": 4, "probe": False}
    spec = make_spec(folder / "model", folder / "rows.jsonl", train=train, privacy={"seal": level}, **RUNS[kind])
    spec = spec.model_copy(update={"model": spec.model.model_copy(update={"dtype": "bf16"})})
    since = time.time()
    run = launch(spec)
    wait_until(lambda: liveness(run) != "live", seconds=LONGEST_SECONDS)
    events, state = events_of(run), read_state(run)
    told = [event["text"] for event in events if event["kind"] == "seal" and event.get("text")]
    seal = told[-1] if told else "nothing was told of it"
    if state.outcome != "finished":
        log = run.log_path.read_text(errors="replace").strip().splitlines()[-6:] if run.log_path.exists() else []
        return Try(False, "\n".join([str(state.why), *log]), seal=seal)
    taken = [event for event in events if event["kind"] == "step"]
    timed = taken[WARM_STEPS:] or taken
    rate = sum(event["tokens"] for event in timed) / sum(event["seconds"] for event in timed)
    loss = f"loss {taken[0]['loss']:.3f} to {taken[-1]['loss']:.3f}"
    return Try(True, loss, taken[0]["at"] - since, rate, seal)


def refused_calls(kind: str, device: str) -> Iterator[str]:
    """Calls that the sealed process alone was refused, by strace."""
    sealed, plain = (_traced(kind, device, level) for level in ("best", "off"))
    for call in sorted(sealed - plain):
        path = re.search(r'"(/[^"]*)"', call)
        # What is nowhere on this machine was not refused.
        if "ENOENT" not in call or (path and os.path.lexists(path[1])):
            yield call


def _traced(kind: str, device: str, level: str) -> set[str]:
    with tempfile.TemporaryDirectory() as name:
        trace = Path(name) / "trace"
        one = [sys.executable, __file__, "--device", device, "--only", kind, "--seal", level]
        subprocess.run(
            ["strace", "-f", "-qq", "-s", "4096", "-o", str(trace), *one], capture_output=True, timeout=900, check=False
        )
        found: set[str] = set()
        begun = False
        for line in trace.read_text(errors="replace").splitlines():
            # What the seal itself does before the work begins is not meant.
            begun = begun or ("execve(" in line and "seal_work.py" in line and "launcher.py" not in line)
            if begun and re.search(rf"= -1 {REFUSED} ", line):
                found.add(re.sub(r"\b\d{3,}\b|0x[0-9a-f]+", "N", line.split(maxsplit=1)[1]))
        return found


def explain(kind: str, device: str, sealed: Try) -> None:
    print("\n".join(f"      {line}" for line in sealed.text.splitlines()))
    single_kind = kind if kind in SINGLE else "compile" if kind == "bf16-lora" else "bitsandbytes"
    if shutil.which("strace") is None:
        here = Path(__file__).relative_to(ROOT)
        print(f"      see which calls: strace -f -Z -o calls.txt .venv/bin/python {here} --only {single_kind}")
        print("      (apt install strace); kernels from 6.15 on tell Landlock's refusals too: dmesg | grep landlock")
        return
    for call in refused_calls(single_kind, device):
        print(f"      refused: {call}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--only", choices=(*SINGLE, *RUNS), action="append")
    parser.add_argument("--seal", choices=("off", "best", "required"))
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    layers = ability()
    level: Level = "best" if layers.missing else "required"
    wanted = arguments.only or [*SINGLE, *RUNS]
    with tempfile.TemporaryDirectory(prefix="seal-on-gpu-") as name:
        folder = Path(name)
        os.environ["FINETUI_HOME"] = str(folder / "home")
        # Both ways begin without what an earlier one compiled; the seal has folders of its own.
        for variable in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "CUDA_CACHE_PATH"):
            os.environ[variable] = str(folder / "unsealed" / variable)
        if arguments.seal:
            for kind in wanted:
                outcome = one_way(kind, arguments.seal, arguments.device, folder, arguments.steps)
                print(kind, "works" if outcome.works else "fails", outcome.text, sep=": ")
            sys.exit(0 if outcome.works else 1)
        _print_machine(arguments.device)
        for each in layers.missing:
            print(f"this machine lacks {each.layer}: {each.why} {each.fix}")
        broken = [kind for kind in wanted if not _compare(kind, level, arguments.device, folder, arguments.steps)]
    if broken:
        sys.exit(f"sealed, these fail that work unsealed: {', '.join(broken)}")  # status 1
    print("all that works here works sealed" + ("" if level == "required" else ", in part"))
    sys.exit(0 if level == "required" else 2)


def one_way(kind: str, level: Level, device: str, folder: Path, steps: int) -> Try:
    if kind in SINGLE:
        return single(kind, device, level, folder)
    if not (folder / "model").exists():
        tiny.make_model(folder / "model", hidden=256, layers=4)
        write_chats(folder / "rows.jsonl", 400)
    return whole_run(kind, folder, level, steps)


def _compare(kind: str, level: Level, device: str, folder: Path, steps: int) -> bool:
    """Whether it works sealed, if it does at all."""
    plain = one_way(kind, "off", device, folder, steps)
    sealed = one_way(kind, level, device, folder, steps)
    words = {True: "works", False: "FAILS"}
    print(f"{kind:<13} unsealed {words[plain.works]}, sealed {words[sealed.works]}", end="")
    if plain.works and sealed.works:
        what = "to the first step" if kind in RUNS else "in all"
        print(f";  {plain.seconds:.1f} s and {sealed.seconds:.1f} s {what}", end="")
        if kind in RUNS:
            ratio = sealed.tokens_per_second / plain.tokens_per_second
            print(
                f";  {plain.tokens_per_second:,.0f} and {sealed.tokens_per_second:,.0f} tokens/s, {ratio:.3f} x", end=""
            )
    print(flush=True)
    print(f"      {sealed.seal}")
    if sealed.works:
        print(f"      {sealed.text}")
    elif plain.works:
        explain(kind, device, sealed)
    else:
        print("\n".join(f"      unsealed: {line}" for line in plain.text.splitlines()))
    return sealed.works or not plain.works


def _print_machine(device: str) -> None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no GPU here; --device cpu goes the same way through without one")
    card = torch.cuda.get_device_name() if device == "cuda" else "no GPU is used"
    version = Path("/proc/driver/nvidia/version")
    driver = version.read_text().splitlines()[0] if version.exists() else "no NVIDIA driver"
    print(f"{card}; torch {torch.__version__}; {driver}; Linux {platform.release()}; uid {os.geteuid()}")
    print("opened for it: " + (", ".join(gpu_devices()) or "no device"))


if __name__ == "__main__":
    main()
