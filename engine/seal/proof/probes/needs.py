"""What training needs, and a seal may not break."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import subprocess
import sys
import tempfile
import threading
from multiprocessing import get_context
from pathlib import Path

from engine.seal.proof.probes.aims import Aims
from engine.seal.proof.probes.calls import MACHINE, Skip

_SECONDS = 1.0


def fork(aims: Aims) -> str:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == 0
    return ""


def thread(aims: Aims) -> str:
    ran: list[int] = []
    other = threading.Thread(target=ran.append, args=(1,))
    other.start()
    other.join()
    assert ran
    return ""


def pair(aims: Aims) -> str:
    """DataLoader's workers hand tensors to each other over such."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"x")
        assert theirs.recv(1) == b"x"
    return ""


def own_loopback(aims: Aims) -> str:
    """Processes of several devices meet there."""
    if aims.sockets != "loopback":
        raise Skip("not asked for")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(_SECONDS)
        with socket.create_connection(server.getsockname(), _SECONDS) as one:
            other, _ = server.accept()
            with other:
                one.sendall(b"x")
                assert other.recv(1) == b"x"
    return ""


def compiled_code(aims: Aims) -> str:
    """Pages that are run, as compiled kernels and ctypes' callbacks are."""
    code = {"x86_64": "b82a000000c3", "aarch64": "40058052c0035fd6"}.get(MACHINE)
    if code is None:
        raise Skip(f"not written for {MACHINE}")
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex(code))
    assert ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))() == 42
    return ""


def shared_memory(aims: Aims) -> str:
    """DataLoader's workers, and several processes of one device, share tensors there."""
    path = Path(f"/dev/shm/finetui-own-{os.getpid()}")
    if not path.parent.is_dir():
        raise Skip("there is no /dev/shm")
    with path.open("xb+") as file:
        path.unlink()
        file.write(b"x")
    get_context("fork").Lock().acquire()
    return ""


def program(aims: Aims) -> str:
    """Compilers are run by torch.compile."""
    subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True, timeout=10 * _SECONDS)
    return ""


def own_folder(aims: Aims) -> str:
    if not aims.writable:
        raise Skip("not asked for")
    before = Path(aims.writable) / f".probe-{os.getpid()}"
    after = before.with_suffix(".after")
    before.write_bytes(b"x")
    before.rename(after)
    after.unlink()
    return ""


def temporary_file(aims: Aims) -> str:
    with tempfile.TemporaryFile() as file:
        file.write(b"x")
    return ""


def randomness(aims: Aims) -> str:
    Path("/dev/null").write_bytes(b"x")
    with Path("/dev/urandom").open("rb") as file:
        assert len(file.read(8)) == 8
    return ""


NEEDS = (
    ("a forked process", fork),
    ("a thread", thread),
    ("a pair of sockets", pair),
    ("its own loopback", own_loopback),
    ("code that was just compiled", compiled_code),
    ("shared memory", shared_memory),
    ("a program", program),
    ("its own folder", own_folder),
    ("a temporary file", temporary_file),
    ("random numbers", randomness),
)
