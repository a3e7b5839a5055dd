"""Each layer alone, all, and none: what it refuses, from within; what is required, and what is passed on."""

from __future__ import annotations

import itertools
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from launching import Account, network_of_mine

from engine.modules import module_environment
from engine.seal.ability import ability
from engine.seal.layers.launch import REFUSED_STATUS
from engine.seal.request import LAYERS, Layer

# What a process may try, one answer each: "open", or the name of the error.
TRIES = """
import ctypes, errno, json, os, socket, sys
port, secret, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
libc = ctypes.CDLL(None, use_errno=True)
def connect(family, address):
    with socket.socket(family) as ours: ours.connect(address)
def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0: raise OSError(ctypes.get_errno(), "")
def new_users():
    child = os.fork()
    if not child: os._exit(ctypes.get_errno() if libc.unshare(0x10000000) else 0)
    if error := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]): raise OSError(error, "")
tries = {
    "loopback outside": lambda: connect(socket.AF_INET, ("127.0.0.1", port)),
    "socket of a path": lambda: connect(socket.AF_UNIX, path),
    "socket without a path": lambda: connect(socket.AF_UNIX, "\\0" + path),
    "read": lambda: open(secret).close(),
    "change its mode": lambda: os.chmod(secret, 0o644),
    "io_uring": lambda: call(425, 1, ctypes.create_string_buffer(120)),
    "namespace": new_users,
    "datagram pair": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
    "signal": lambda: os.kill(os.getppid(), 0),
    "write": lambda: open("/tmp/" + path.replace("/", "-"), "w").close(),
}
answers = {}
for name, attempt in tries.items():
    try: attempt()
    except OSError as error: answers[name] = errno.errorcode[error.errno]
    else: answers[name] = "open"
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
answers["kernel"] = {name: status[name].strip() for name in ("NoNewPrivs", "Seccomp", "CapEff", "CapBnd")}
answers["network"] = os.readlink("/proc/self/ns/net")
answers["user"] = os.getuid()
print(json.dumps(answers))
"""
# Which layers refuse what, each alone.
CLOSED_BY: dict[str, set[Layer]] = {
    "loopback outside": {"namespace", "landlock", "seccomp"},
    "socket of a path": {"namespace", "seccomp"},
    "socket without a path": {"namespace", "landlock", "seccomp"},
    "read": {"namespace", "landlock"},
    "change its mode": {"namespace"},
    "io_uring": {"seccomp"},
    "namespace": {"seccomp"},
    "datagram pair": {"seccomp"},
    "signal": {"landlock"},
}
LANDLOCK_SINCE = {"loopback outside": 4, "socket without a path": 6, "signal": 6}
SUBSETS = [subset for count in range(4) for subset in itertools.combinations(LAYERS, count)]


def require_here(*layers: Layer) -> None:
    for layer in ability().missing:
        if layer.layer in layers:
            pytest.skip(f"the layer {layer.layer} is missing here: {layer.why}")


@pytest.mark.parametrize("layers", SUBSETS, ids="+".join)
def test_each_layer_refuses_its_part_and_the_report_says_which_hold(somebody: Account, layers: tuple[Layer, ...]):
    require_here(*layers)
    secret = somebody.folder / "secret"
    secret.write_text("of a person")
    secret.chmod(0o600)
    os.chown(secret, somebody.user, -1)
    path = str(somebody.folder / "socket")
    with (
        socket.create_server(("127.0.0.1", 0)) as outside,
        socket.socket(socket.AF_UNIX) as named,
        socket.socket(socket.AF_UNIX) as nameless,
    ):
        for listener, address in ((named, path), (nameless, "\0" + path)):
            listener.bind(address)
            listener.listen()
        Path(path).chmod(0o777)
        words = [str(outside.getsockname()[1]), str(secret), path]
        told = somebody.sealed([somebody.python, "-I", "-S", "-c", TRIES, *words], only=layers, cwd="/")
    assert told.report.held == layers
    answers = told.answer
    abi = next((each.detail["abi"] for each in told.report.layers if each.layer == "landlock" and each.held), 0)
    for name, closers in CLOSED_BY.items():
        if name == "namespace" and somebody.user != 0:
            closers = {*closers, "namespace"}  # its own users are the last ones
        closed = {each for each in closers if each != "landlock" or abi >= LANDLOCK_SINCE.get(name, 1)}
        expected_open = not closed & set(layers) and not (name == "signal" and somebody.user != os.geteuid())
        assert (answers[name] == "open") is expected_open, (name, answers[name])
    assert answers["kernel"]["NoNewPrivs"] == "1"
    assert (answers["kernel"]["Seccomp"] == "2") is ("seccomp" in layers or _filtered_already())
    assert (answers["network"] != network_of_mine()) is ("namespace" in layers)
    # Root reads what is others'; whoever else keeps nothing. In a private /tmp anybody may write.
    assert int(answers["kernel"]["CapEff"], 16) & ~0b1010 == 0
    assert answers["user"] == somebody.user
    written = Path("/tmp", path.replace("/", "-"))
    if "namespace" in layers:
        assert answers["write"] == "open" and not written.exists()
    written.unlink(missing_ok=True)


@pytest.mark.parametrize("missing", LAYERS)
def test_what_is_required_is_refused_without_it_and_nothing_starts(me: Account, missing: Layer):
    started = me.folder / "started"
    command = ["touch", str(started)]
    told = me.sealed(command, "required", only=[layer for layer in LAYERS if layer != missing], write=[me.folder])
    assert told.status == REFUSED_STATUS and not started.exists()
    assert missing in told.report.refused and "(simulated)" in told.report.refused
    assert [each.layer for each in told.report.missing if "(simulated)" in each.why] == [missing]


def test_off_leaves_all_as_it_is_but_closes_descriptors(me: Account):
    with Path(os.devnull).open() as other:
        os.set_inheritable(other.fileno(), True)
        told = me.sealed(
            f"import os, json\ntry: os.fstat({other.fileno()})\nexcept OSError: print(json.dumps(os.listdir('/')))",
            "off",
            pass_fds=[other.fileno()],
        )
    assert (
        set(told.answer) == {each.name for each in Path("/").iterdir()}
        and told.report.layers == ()
        and not told.report.refused
    )


def test_a_seal_within_a_seal_is_found_and_told_as_what_holds(me: Account):
    require_here(*LAYERS)
    inner = (
        "import json, os, subprocess, sys\n"
        "sys.path.append(sys.argv[1])\n"
        "from engine.seal.request import SealRequest\n"
        "for level in ('best', 'required'):\n"
        "    ours, theirs = os.pipe(); asked = os.memfd_create('request')\n"
        "    os.write(asked, SealRequest(level, theirs).to_json().encode()); os.lseek(asked, 0, 0)\n"
        "    launcher = [sys.executable, '-I', '-S', sys.argv[1] + '/engine/seal/launcher.py']\n"
        "    status = subprocess.run(\n"
        "        [*launcher, '--request', str(asked), '--', 'true'], pass_fds=(asked, theirs)).returncode\n"
        "    os.close(theirs)\n"
        "    report = json.loads(open(ours).read())\n"
        "    held = [each['layer'] for each in report['layers'] if each['held']]\n"
        "    print(status, report['inherited'], *held, bool(report['refused']))\n"
    )
    command = [me.python, "-I", "-c", inner, str(me.tree)]
    assert me.sealed(command).output.splitlines() == ["0 True namespace landlock seccomp False"] * 2
    part = me.sealed(command, only=["namespace", "seccomp"]).output.splitlines()
    assert part == ["0 True namespace seccomp False", "125 True namespace seccomp True"]


def test_the_command_is_the_process_that_was_started(somebody: Account):
    """Number, session, signal of its parent's death, and what is said of a program that is not there: as without."""
    asks = (
        "import ctypes, json, os\n"
        "signal = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(signal))\n"
        "children = open('/proc/self/task/%d/children' % os.getpid()).read()\n"
        "print(json.dumps([os.getpid(), os.getsid(0), signal.value, os.getcwd(), children]))"
    )

    def prepare() -> None:
        import ctypes

        os.setsid()
        ctypes.CDLL(None).prctl(1, 15)

    told = somebody.sealed(asks, prepare=prepare)
    pid, session, signal, folder, children = told.answer
    assert (pid, signal, folder, children) == (session, 15, str(somebody.folder), "")
    gone = somebody.sealed(["no-such-program"])
    assert gone.status == 127 and gone.errors == "no-such-program: No such file or directory\n"


@pytest.mark.parametrize(("limit", "left"), [(None, [1, 1]), (0, [0, 0])], ids=str)
def test_what_was_in_memory_is_handed_to_nobody_after_a_crash(another: Account, limit: int | None, left: list[int]):
    """By a limit of 1, at which the kernel gives up the pipe to core_pattern's program too."""

    def prepare() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))

    asks = "import json, resource; print(json.dumps(resource.getrlimit(resource.RLIMIT_CORE)))"
    assert another.sealed(asks, prepare=prepare).answer == left


@pytest.mark.parametrize(("limit", "left"), [(resource.RLIM_INFINITY, 1), (1, 1), (0, 0)])
def test_who_is_ended_for_computing_too_long_hands_no_memory_over_either(limit: int, left: int):
    """SIGXCPU dumps core, and a limit of 0 is none for core_pattern's program."""
    asks = (
        "import resource\n"
        f"resource.setrlimit(resource.RLIMIT_CORE, (min({limit}, 0), {limit}))\n"
        "from engine.child_process import limit_processor_time; limit_processor_time(60)\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE)[0])"
    )
    if resource.getrlimit(resource.RLIMIT_CORE)[1] not in (resource.RLIM_INFINITY, limit) and limit:
        pytest.skip("this machine has a lower limit already, which is not ours to raise")
    done = subprocess.run([sys.executable, "-c", asks], env=module_environment(), capture_output=True, check=True)
    assert done.stdout == f"{left}\n".encode()


def _filtered_already() -> bool:
    return "\nSeccomp:\t2" in Path("/proc/self/status").read_text()
