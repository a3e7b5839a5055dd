"""What computing on a GPU opens, inside the seal: shown with stand-ins where there is no GPU.

Drivers that shut CUDA out for less are known: see engine.seal.policy.devices, and launch for the names of threads.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from launching import TREE, Account
from test_layers import require_here

from engine.seal.policy import devices
from engine.seal.policy.base import base_places

# What cuInit does beside its devices, as traces of it show: it names its threads from outside of them, asks for their
# order, listens where other processes would ask for its memory, and keeps memory in a file without a name.
BEGIN_AS_CUDA = """
import ctypes, errno, json, mmap, os, socket, threading
libc, stop, found = ctypes.CDLL(None), threading.Event(), {}
def tried(what):
    try:
        return what() or "done"
    except OSError as error:
        return errno.errorcode[error.errno]
def write(path):
    with open(path, "w") as file: file.write("x")
def listen():
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    listener.bind(b"\\0cuda-uvmfd-%d-%d" % (os.stat("/proc/self/ns/pid").st_ino, os.getpid()))
    listener.listen(16)
def keep():
    file = os.memfd_create("cuda")
    os.ftruncate(file, mmap.PAGESIZE)
    mmap.mmap(file, mmap.PAGESIZE)[0] = 1
thread = threading.Thread(target=stop.wait)
thread.start()
# The C library writes to /proc/self/task/NUMBER/comm.
found["named"] = libc.pthread_setname_np(ctypes.c_ulong(thread.ident), b"cuda-EvtHandlr")
with open(f"/proc/self/task/{thread.native_id}/comm") as file: found["name"] = file.read().strip()
stop.set()
# A thread that is to be as others are, said in so many words: the C library tells the kernel once it is there.
attributes, begin = ctypes.create_string_buffer(128), ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(lambda _: None)
libc.pthread_attr_init(attributes)
libc.pthread_attr_setinheritsched(attributes, 1)
libc.pthread_attr_setschedpolicy(attributes, os.SCHED_OTHER)
other = ctypes.c_ulong()
found["scheduled"] = libc.pthread_create(ctypes.byref(other), attributes, begin, None)
if not found["scheduled"]: libc.pthread_join(other, None)
found["listening"], found["memory"] = tried(listen), tried(keep)
parent = os.getppid()
found["others"] = [tried(lambda: write(f"/proc/{path}")) for path in (
    f"{parent}/task/{parent}/comm", f"{parent}/oom_score_adj", "self/oom_score_adj", "sys/kernel/core_pattern")]
# Which the kernel would forget when memory is short, and with it what was allowed of it, if nothing held it.
found["held"] = any(os.readlink(f"/proc/self/fd/{each}") == f"/proc/{os.getpid()}/task"
    for each in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{each}"))
print(json.dumps(found))
"""


@pytest.mark.parametrize("only", [None, ["landlock", "seccomp"]], ids=["all layers", "without a namespace"])
def test_what_cuda_does_of_itself_when_it_begins_is_allowed(somebody: Account, only: Any):
    require_here(*(only or ("namespace", "landlock", "seccomp")))
    found = somebody.sealed(BEGIN_AS_CUDA, only=only).answer
    assert found.pop("others") in (["EACCES"] * 4, ["EROFS"] * 4)
    done = {"named": 0, "scheduled": 0, "listening": "done", "memory": "done", "held": True}
    assert found == {**done, "name": "cuda-EvtHandlr"}


# A machine with a GPU of which a part was divided off (MIG), and with much that computing has no use for. The devices
# are others' by their numbers: of /dev/zero, which can be mapped, and of /dev/random, which answers to an ioctl.
WORLD = """
import json, os, stat, subprocess, sys
from pathlib import Path
sys.path[:0] = [{tree!r}, {tests!r}]
for place in ("/dev", "/run", "/proc/driver"):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "stand-in", place], check=True)
numbers = {{"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}}
for name in {mapped!r} + {answering!r} + {shut!r}:
    numbers[name] = 8 if name in {answering!r} else 5
os.umask(0)
for name, minor in numbers.items():
    path = Path("/dev", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
Path("/dev/shm").mkdir(mode=0o1777)
kept = {{
    "/proc/driver/nvidia/params": "ModifyDeviceFiles: 1",
    "/proc/driver/nvidia/capabilities/mig/config": "DeviceFileMinor: 1",
    "/proc/driver/nvidia/capabilities/gpu0/mig/gi1/access": "DeviceFileMinor: 3",
    "/proc/driver/nvidia/capabilities/gpu0/mig/gi1/ci0/access": "DeviceFileMinor: 4",
    "/run/opengl-driver/lib/libcuda.so.1": "a library of NixOS",
    "/run/nvidia-persistenced/socket": "",
}}
for path, text in kept.items():
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
from launching import Account
from engine.seal.policy.base import base_places
from engine.seal.policy.devices import gpu_devices
user, tree, python, folder = json.loads(sys.argv[1])
account = Account(user, Path(tree), python, Path(folder))
read, request = base_places(os.environ).read, {{"devices": gpu_devices()}}
print(json.dumps([
    account.sealed({inside!r}, read=read, request=request, only=only).answer
    for only in (None, ["namespace"], ["landlock", "seccomp"])
]))
"""
INSIDE = """
import errno, fcntl, json, mmap, os
ENTROPY = 0x80045200
def used(path):
    try:
        opened = os.open(path, os.O_RDWR)
    except OSError as error:
        return errno.errorcode[error.errno]
    try:
        fcntl.ioctl(opened, ENTROPY, bytes(4))
        return "answers"
    except OSError as error:
        assert error.errno != errno.EACCES, path
    mmap.mmap(opened, mmap.PAGESIZE, mmap.MAP_SHARED)[0] = 1
    return "mapped"
def read(path):
    try:
        with open(path) as file: return file.read()
    except OSError as error:
        return errno.errorcode[error.errno]
print(json.dumps([{name: used("/dev/" + name) for name in NAMES}, [read(path) for path in FILES]]))
"""
MAPPED = ["nvidia0", "nvidia1", "nvidia-caps/nvidia-cap3", "nvidia-caps/nvidia-cap4", "dri/renderD128"]
ANSWERING = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"]
SHUT = [
    *("nvidia-modeset", "nvidia-caps/nvidia-cap1", "nvidia-caps-imex-channels/channel0", "nvidia-nvswitchctl"),
    *("nvidia-nvswitch0", "nvidia-nvlink", "nvidia-fs0", "gdrdrv", "infiniband/uverbs0", "dri/card0", "mem", "sda"),
]


def test_the_devices_of_a_gpu_open_map_and_answer_and_all_others_do_not(somebody: Account):
    require_here("namespace", "landlock", "seccomp")
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("only root, with mounts of its own, can make stand-ins of devices")
    names = [*MAPPED, *ANSWERING, *SHUT]
    files = ["/proc/driver/nvidia/params", "/run/opengl-driver/lib/libcuda.so.1", "/run/nvidia-persistenced/socket"]
    inside = f"NAMES, FILES = {names!r}, {files!r}\n{INSIDE}"
    tests = str(Path(__file__).parent)
    world = WORLD.format(tree=str(TREE), tests=tests, mapped=MAPPED, answering=ANSWERING, shut=SHUT, inside=inside)
    who = json.dumps([somebody.user, str(somebody.tree), somebody.python, str(somebody.folder)])
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-P", "-c", world, who]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert told.returncode == 0, told.stderr
    opened = {**dict.fromkeys(MAPPED, "mapped"), **dict.fromkeys(ANSWERING, "answers")}
    by_view, by_landlock = (opened | dict.fromkeys(SHUT, refusal) for refusal in ("ENOENT", "EACCES"))
    libraries = ["ModifyDeviceFiles: 1", "a library of NixOS"]
    assert json.loads(told.stdout) == [
        [by_view, [*libraries, "ENOENT"]],
        [by_view, [*libraries, "ENOENT"]],
        [by_landlock, [*libraries, "EACCES"]],
    ]


@pytest.mark.parametrize(
    ("there", "given"),
    [
        (["dxg"], ["dxg"]),
        (["kfd", "dri/card1", "dri/renderD128"], ["dri/renderD128", "kfd"]),
        (
            ["nvmap", "nvhost-ctrl", "nvhost-ctrl-gpu", "nvhost-vi", "nvhost-nvenc", "nvgpu/igpu0/ctrl", "video0"],
            ["nvgpu", "nvhost-ctrl", "nvhost-ctrl-gpu", "nvmap"],
        ),
        (["null", "sda"], []),
    ],
    ids=["WSL", "ROCm", "Jetson", "none"],
)
def test_other_kinds_of_gpu_are_given_by_their_own_devices(
    there: list[str], given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _stand_in(tmp_path, monkeypatch, there)
    assert devices.gpu_devices() == [str(tmp_path / "dev" / name) for name in given]


FULL = ["nvidiactl", "nvidia0", "nvidia-uvm", "nvidia-uvm-tools"]


@pytest.mark.parametrize(
    ("there", "is_used"),
    [(FULL, False), (FULL[:3], True), ([], True)],
    ids=["all there", "one left for the first to compute", "none yet"],
)
def test_a_driver_that_has_not_made_all_its_devices_is_used_once_before_the_seal(
    there: list[str], is_used: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("this machine has no C compiler")
    _stand_in(tmp_path, monkeypatch, there)
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    # As a real one, which becomes root for it through a program that a seal would not let it.
    source = 'int creat(const char *, int); int cuInit(int flags) { return creat("%s", 0600); }'
    library = tmp_path / "libcuda.so.1"
    code = (source % (tmp_path / "used")).encode()
    subprocess.run([compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)], input=code, check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    devices.touch_gpu()
    assert (tmp_path / "used").exists() == is_used


def test_a_compiler_is_given_with_what_it_was_installed_with_and_nothing_of_a_person_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As of a cluster's modules, of gcc-toolset and of a home folder, which is not given for one that lies in it."""
    home, module = tmp_path / "home", tmp_path / "modules" / "gcc-14"
    project = tmp_path / "project"
    for program in (module / "bin/gcc-14", home / "bin/nvcc", home / ".config/bin/ptxas", project / "bin/clang"):
        program.parent.mkdir(parents=True)
        program.touch(mode=0o755)
    (home / "bin/gcc").symlink_to(module / "bin/gcc-14")
    monkeypatch.setenv("HOME", str(home))
    for folder in (module / "lib", module / "x86_64-linux-gnu", project / "data"):
        folder.mkdir()
    path = f"{home / 'bin'}:{project / 'bin'}"
    named = {"PATH": path, "TRITON_PTXAS_PATH": str(home / ".config/bin/ptxas"), "CC": "gcc -m64"}
    read = base_places(named).read
    assert {str(module / part) for part in ("bin", "lib", "x86_64-linux-gnu")} <= set(read)
    assert {str(project), str(project / "data")}.isdisjoint(read)
    assert {str(home / "bin/gcc"), str(home / "bin/nvcc"), named["TRITON_PTXAS_PATH"]} <= set(read)
    assert {str(home), str(home / "bin"), str(home / ".config")}.isdisjoint(read)


def _stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, there: list[str]) -> None:
    monkeypatch.setattr(devices, "_DEVICES", folder / "dev")
    monkeypatch.setattr(devices, "_KERNEL", folder / "proc")
    for name in there:
        path = folder / "dev" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
