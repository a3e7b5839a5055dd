"""python reading_sealed.py PATH...: what a sealed process read of them, with what the layers said, as one line of JSON.

It stands for every job that reads a person's files: its places are found, and it is started, as theirs are."""

import json
import subprocess
import sys

from engine.seal.policy.places import data_places
from engine.seal.sealing import start_sealed

JOB = """
import json, os, sys, tempfile
def size_bytes(path):
    if os.path.isdir(path):
        return sum(size_bytes(os.path.join(path, name)) for name in os.listdir(path))
    with open(path, "rb") as file:
        return len(file.read())
with tempfile.NamedTemporaryFile() as file:
    file.write(b"x")
print(json.dumps({"sizes": [size_bytes(path) for path in sys.argv[1:]], "temporary": file.name}))
"""

process, report = start_sealed(
    [sys.executable, "-S", "-P", "-c", JOB, *sys.argv[1:]],
    data_places(sys.argv[1:]),
    "best",
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
)
answer = process.communicate(timeout=60)[0]
layers = {each.layer: each.why if each.held else f"missing: {each.why}" for each in report.layers}
print(json.dumps({"status": process.returncode, "layers": layers, **json.loads(answer or b"{}")}))
