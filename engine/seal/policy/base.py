"""What every sealed process may read: its interpreter, its libraries, the system's, and what the kernel tells."""

from __future__ import annotations

import os
import shutil
import site
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from engine.seal.policy.caches import scratch
from engine.seal.policy.links import holds_secrets, hops, is_secret
from engine.seal.policy.places import Places, reading_places

READ_VARIABLE, WRITE_VARIABLE = "FINETUI_SEAL_READ", "FINETUI_SEAL_WRITE"
"""Environment variables with further places, divided as in PATH: for installations that nobody foresaw, and tests."""

_ROOT = Path(__file__).resolve().parents[3]
_SYSTEM = (
    *("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix/store", "gnu/store"),
    *("opt/cuda*", "opt/rocm*", "opt/amdgpu*", "opt/nvidia*", "opt/intel", "run/opengl-driver"),
    # How libraries are found, what time it is and whose files these are. Of the network nothing but what says that
    # localhost is 127.0.0.1.
    *("etc/ld.so.cache", "etc/ld.so.preload", "etc/ld.so.conf", "etc/ld.so.conf.d", "etc/alternatives"),
    *("etc/localtime", "etc/timezone", "etc/passwd", "etc/group", "etc/nsswitch.conf", "etc/hosts"),
    *("etc/protocols", "etc/services", "etc/os-release", "etc/locale.alias", "etc/mime.types", "etc/nvidia"),
    *("proc", "sys"),
)
_FOLDER_VARIABLES = (
    *("LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "ROCM_PATH", "ROCM_HOME", "CONDA_PREFIX", "TRITON_LIBCUDA_PATH"),
)
# What torch.compile and Triton run. Those of clusters, and newer ones than the system's, lie anywhere on the machine.
_COMPILERS = ("cc", "gcc", "c++", "g++", "clang", "clang++", "as", "ld", "nvcc", "ptxas")
# Of what was installed with one. No more of that folder is opened: it may be a person's own.
_COMPILERS_PARTS = ("bin", "lib", "lib32", "lib64", "libexec", "include", "share", "nvvm", "targets", "*-linux-gnu*")
_COMPILER_VARIABLES = ("CC", "CXX", "CUDAHOSTCXX", "TRITON_PTXAS_PATH", "TRITON_CUOBJDUMP_PATH", "TRITON_NVDISASM_PATH")


def base_places(environment: Mapping[str, str]) -> Places:
    """For a process with this environment."""
    read = [
        *_python(environment),
        *_mapped(),
        *_system(),
        *_of_variables(environment, _FOLDER_VARIABLES),
        *_compilers(environment),
        environment.get("PYTHONPYCACHEPREFIX", ""),
        *environment.get("LD_PRELOAD", "").replace(":", " ").split(),
        *_listed(environment, READ_VARIABLE),
    ]
    return Places(
        read=_there(read),
        write=_there(_listed(environment, WRITE_VARIABLE)),
    ) | reading_places((), (scratch(),))


def _there(paths: Iterable[str]) -> tuple[str, ...]:
    found = dict.fromkeys(each for path in paths if path.startswith("/") for each in hops(path))
    return tuple(str(path) for path in found if os.path.lexists(path))


def _listed(environment: Mapping[str, str], name: str) -> list[str]:
    return [part for part in environment.get(name, "").split(os.pathsep) if part]


def _python(environment: Mapping[str, str]) -> Iterator[str]:
    """The interpreter, the environment that it belongs to, and where its modules lie."""
    yield sys.executable
    # A Python may be built for the home folder, or ~/.local, and the tree lie right in the root of a container.
    for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix):
        yield from _whole_or(("bin", "lib", "lib64", "include"), prefix)
    yield from _whole_or(("engine", "profiles", "tui"), str(_ROOT))
    # The first is the folder of the program or the one it was started in, which no module of ours is taken from.
    known = sys.path[0 if sys.flags.safe_path else 1 :]
    folders = [*known, *_listed(environment, "PYTHONPATH"), *site.getsitepackages(), *_editable()]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    yield from (folder for folder in folders if not _is_too_much(folder))


def _whole_or(parts: Iterable[str], folder: str) -> Iterable[str]:
    return [f"{folder}/{part}" for part in parts] if _is_too_much(folder) else [folder]


def _editable() -> Iterator[str]:
    """Packages that are run from where they are written (`pip install -e`): setuptools and the package editables keep
    their places in what every start of this interpreter loads; others are in sys.path."""
    for name, module in list(sys.modules.items()):
        if name.startswith("__editable__"):
            yield from map(str, getattr(module, "MAPPING", {}).values())
            for folders in getattr(module, "NAMESPACES", {}).values():
                yield from map(str, folders)
    for finder in sys.meta_path:
        for file in getattr(finder, "_redirections", {}).values():
            # Of a package its __init__.py is named, and all of it is meant.
            yield str(Path(file).parent if Path(file).name == "__init__.py" else file)


def _mapped() -> Iterator[str]:
    """Where the libraries lie that this very process runs with: those of clusters have the places of others written
    into them, anywhere on the machine."""
    try:
        lines = Path("/proc/self/maps").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    files = {fields[5] for line in lines if len(fields := line.split(maxsplit=5)) > 5}
    folders = {str(Path(file).parent) for file in files if file.startswith("/") and ".so" in file}
    yield from (folder for folder in folders if not _is_too_much(folder))


def _is_too_much(folder: str) -> bool:
    """Whether the home folder or a place of secrets lies in it."""
    return holds_secrets(os.path.realpath(folder))


def _system() -> Iterator[str]:
    root = Path("/")
    for pattern in _SYSTEM:
        yield from map(str, root.glob(pattern))
    for path in (root / "etc/ld.so.conf", *root.glob("etc/ld.so.conf.d/*.conf")):
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:
            continue
        yield from (line.strip() for line in lines)  # those that are folders begin with a slash


def _of_variables(environment: Mapping[str, str], names: Iterable[str]) -> Iterator[str]:
    for name in names:
        yield from (folder for folder in _listed(environment, name) if not _is_too_much(folder))


def _compilers(environment: Mapping[str, str]) -> Iterator[str]:
    """Those that would be run, and what was installed with each: headers, and the programs that it runs itself."""
    named = [environment.get(name, "").partition(" ")[0] for name in _COMPILER_VARIABLES]
    for name in dict.fromkeys((*_COMPILERS, *filter(None, named))):
        found = shutil.which(name, path=environment.get("PATH"))
        if found is None or not found.startswith("/"):
            continue
        yield found
        prefix = Path(found).resolve().parent.parent
        if not _is_too_much(str(prefix)) and not is_secret(str(prefix)):
            yield from (str(path) for part in _COMPILERS_PARTS for path in prefix.glob(part))
