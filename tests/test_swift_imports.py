"""A process that begins with torch loads what it needs, and the compiler when a function is to be compiled."""

from __future__ import annotations

import subprocess
import sys

from engine.modules import module_environment

CHILD = """
import gc, sys
from engine.swift_imports import swift_imports

with swift_imports():
    import torch
    import engine.train.recipe, engine.train.setup
    compiled = []
    def backend(graph, examples):
        compiled.append(graph)
        return graph.forward
    double = torch.compile(lambda x: 2 * x, backend=backend)
    @torch.compile(backend=backend, dynamic=False)
    def triple(x, *, more):
        "Three times, and more."
        return 3 * x + more
assert "bitsandbytes" in sys.modules and "torch._inductor.compile_fx" not in sys.modules
assert gc.isenabled() and gc.get_freeze_count() > 100_000
assert torch.compile.__module__ == "torch" and triple.__doc__ and not compiled

one = torch.ones(3)
for _ in range(2):
    assert double(one).tolist() == [2, 2, 2] and triple(one, more=one).tolist() == [4, 4, 4]
assert len(compiled) == 2

from bitsandbytes.optim import AdamW8bit
weight = torch.nn.Parameter(torch.ones(64, 64))
weight.grad = torch.ones(64, 64)
AdamW8bit([weight], lr=0.1).step()
assert weight.detach().lt(1).all()
"""


def test_the_compiler_is_loaded_when_a_function_is_to_be_compiled() -> None:
    child = subprocess.run(
        [sys.executable, "-c", CHILD], env=module_environment(), capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
