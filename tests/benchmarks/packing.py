"""Packing with finetui and with TRL's best-fit decreasing, on the same lengths: how full the rows are, how long it
takes, and the memory it takes beside the lengths.

    python tests/benchmarks/packing.py [--peer-python VENV/bin/python] [--examples 1e5 1e6 1e7] [--rounds 3]

Each measurement is a fresh process. "pack" is what both have in common: which example goes into which row. TRL's
`pack_dataset` also copies the tokens into new rows, which finetui never does; it is given columns of one byte a token
to keep that small, and timed whole. Rows are of 2,048 tokens, the lengths lognormal (a median of 148), as conversations
are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CAPACITY = 2048

LENGTHS = f"""
import json, sys, time
import numpy as np
count = int(sys.argv[1])
lengths = np.random.default_rng(5).lognormal(5, 1, count).astype(np.int32).clip(1, {CAPACITY})
def memory(name):
    status = open("/proc/self/status").read()
    return int(status.partition(name + ":")[2].split()[0]) / 1024
def begin():
    open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
    return memory("VmRSS"), time.perf_counter()
def result(rows, begun):
    seconds, mib = time.perf_counter() - begun[1], memory("VmHWM") - begun[0]
    filled = float(lengths.sum(dtype=np.int64)) / (rows * {CAPACITY})
    print(json.dumps(dict(rows=rows, filled=filled, seconds=seconds, mib=mib)))
"""
OURS = """
from engine.data.packing import pack
begun = begin()
packs = pack(lengths, CAPACITY, seed=0)
result(len(packs), begun)
"""
PEER = """
import pyarrow as pa
from datasets import Dataset
from trl import pack_dataset
offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
tokens = pa.LargeListArray.from_arrays(offsets, pa.array(np.zeros(offsets[-1], np.int8)))
table = Dataset(pa.table({"input_ids": tokens}))
begun = begin()
how = {"batch_size": BATCH, "keep_in_memory": True}
packed = pack_dataset(table, seq_length=CAPACITY, strategy="bfd", map_kwargs=how)
result(len(packed), begun)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, help="python of an environment that has trl")
    parser.add_argument("--examples", type=lambda text: int(float(text)), nargs="+", default=[10**5, 10**6, 10**7])
    parser.add_argument("--peer-most", type=lambda text: int(float(text)), default=10**6)
    parser.add_argument("--rounds", type=int, default=3, help="the quickest of so many is told")
    options = parser.parse_args()
    print(f"{'examples':>12}  {'packer':28}{'rows':>10}{'filled':>10}{'seconds':>10}{'MiB':>8}")
    for count in options.examples:
        _tell(count, "finetui", Path(sys.executable), OURS, options.rounds)
        if options.peer_python and count <= options.peer_most:
            # 1,000 examples at a time is what the peer does unless told otherwise.
            for name, batch in (("TRL bfd, 1,000 at a time", 1000), ("TRL bfd, all at once", count)):
                _tell(count, name, options.peer_python.absolute(), PEER.replace("BATCH", str(batch)), options.rounds)


def _tell(count: int, name: str, python: Path, code: str, rounds: int) -> None:
    """Measure in fresh processes and print the quickest."""
    source = LENGTHS + code.replace("CAPACITY", str(CAPACITY))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"}
    environment |= {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    found = []
    for _ in range(rounds):
        command = [str(python), "-c", source, str(count)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{count:>12,}  {name:28}failed: {done.stderr.strip().splitlines()[-1]}")
            return
        found.append(json.loads(done.stdout.splitlines()[-1]))
    best = min(found, key=lambda each: each["seconds"])
    print(
        f"{count:>12,}  {name:28}{best['rows']:>10,}{best['filled']:>10.3%}"
        f"{best['seconds']:>10.2f}{best['mib']:>8,.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
