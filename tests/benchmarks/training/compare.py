"""Train the same work with finetui and its peers, interleaved, and print ratios. See README.md beside this file."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="the best of this many is compared")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--trl", type=Path, help="python of an environment that has trl")
    parser.add_argument("--llamafactory", type=Path, help="python of an environment that has llamafactory")
    parser.add_argument("--json", type=Path, help="write every round's results here, too")
    options = parser.parse_args()
    # not resolved: a virtual environment's python is a link, and what it links to knows nothing of the environment
    peers = {"run_finetui.py": Path(sys.executable), "run_bare.py": Path(sys.executable)}
    peers |= {"run_trl.py": options.trl.absolute()} if options.trl else {}
    peers |= {"run_llamafactory.py": options.llamafactory.absolute()} if options.llamafactory else {}

    with tempfile.TemporaryDirectory() as folder:
        assets = Path(folder)
        subprocess.run([sys.executable, HERE / "assets.py", assets], check=True, capture_output=True)
        results: list[dict[str, Any]] = []
        for number in range(options.rounds):
            for method in ("full", "lora"):
                for script, python in peers.items():
                    result = {"method": method} | run(python, script, assets, method, options.threads)
                    results.append(result)
                    print(
                        f"round {number + 1} {method:4} {result['peer']:14} "
                        f"{result['tokens_per_second']:6.0f} tokens/s {result['peak_mib']:6.0f} MiB",
                        flush=True,
                    )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    for method in ("full", "lora"):
        print_table(method, [result for result in results if result["method"] == method])


def run(python: Path, script: str, assets: Path, method: str, threads: int) -> dict[str, Any]:
    """One peer's result from a fresh process."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": f"{HERE}:{ROOT}"}
    finished = subprocess.run(
        [python, HERE / script, assets, method], env=environment, capture_output=True, text=True, check=False
    )
    for line in finished.stdout.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line.removeprefix("RESULT "))
    sys.exit(f"{script} {method} gave no result:\n{finished.stdout[-2000:]}\n{finished.stderr[-4000:]}")


def print_table(method: str, results: list[dict[str, Any]]) -> None:
    """The best round of each peer, and finetui's ratio to it."""
    best: dict[str, dict[str, Any]] = {}
    for result in results:
        known = best.get(result["peer"])
        if known is None or result["tokens_per_second"] > known["tokens_per_second"]:
            best[result["peer"]] = result
    least = {peer: min(each["peak_mib"] for each in results if each["peer"] == peer) for peer in best}
    ours = best["finetui"]
    print(f"\n{method}: best of the rounds   tokens/s   finetui is   peak MiB   finetui takes   gradient norm")
    for peer, result in best.items():
        print(
            f"  {peer:24} {result['tokens_per_second']:10.0f} "
            f"{ours['tokens_per_second'] / result['tokens_per_second']:10.2f} x "
            f"{least[peer]:10.0f} {least['finetui'] / least[peer]:13.2f} x {result['gradient_norm']:15.3f}"
        )


if __name__ == "__main__":
    main()
