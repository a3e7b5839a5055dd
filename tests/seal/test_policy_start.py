"""Starting a process sealed: what it is told, what it is left of its environment, and what becomes of it where a layer
is missing. Real processes on this kernel, whatever layers it has."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from engine.modules import module_environment
from engine.run.endings.errors import ending_of_error
from engine.run.sealing.hearing import Hearing
from engine.seal import compiling, sealing
from engine.seal.compiling import compile_libraries
from engine.seal.policy import environment
from engine.seal.policy.environment import sealed_environment
from engine.seal.policy.places import Places, computing_places, reading_places
from engine.seal.sealing import SEALED_VARIABLE, SealRefused, is_sealed, run_sealed, start_sealed

ALL = "namespace,landlock,seccomp"
TELLS = """
import json, os, sys
from engine.home import cache_root, home
from engine.seal.policy.places import Places
from engine.seal.sealing import is_sealed, start_sealed
from engine.spec import parse_spec
inner, report = start_sealed([sys.executable, "-c", ""], Places(), "best")
print(json.dumps({"cache": str(cache_root()), "home": str(home()), "sealed": is_sealed(), "inherited": report.inherited,
    "inner": inner.wait(), "environment": dict(os.environ)}))
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "finetui"))
    return tmp_path


def tell(**variables: str) -> dict[str, Any]:
    command = [sys.executable, "-P", "-c", TELLS]
    done = run_sealed(command, Places(), timeout_seconds=60, env=module_environment() | variables)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_the_folders_of_finetui_are_the_same_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("FINETUI_HOME", "XDG_DATA_HOME", "FINETUI_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    found = tell()
    assert found["cache"] == str(tmp_path / "caches/finetui")
    assert found["home"] == str(tmp_path / ".local/share/finetui")
    assert found["environment"]["XDG_CACHE_HOME"] == str(tmp_path / "caches/finetui/libraries/shared")
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "own"))
    found = tell()
    assert (found["cache"], found["home"]) == (str(tmp_path / "own/cache"), str(tmp_path / "own"))


def test_a_process_within_a_seal_starts_others_as_they_are(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = tell()
    assert found["sealed"] and found["inherited"] and found["inner"] == 0
    monkeypatch.setenv(SEALED_VARIABLE, found["environment"][SEALED_VARIABLE])
    assert not is_sealed(), "the variable alone seals nobody"


def test_required_layers_are_not_believed_to_hold_around_a_process_because_a_variable_says_so(told: Path) -> None:
    """As in a container, whose restrictions are none of ours."""
    program = """
from engine.seal.policy.places import Places
from engine.seal.sealing import SealRefused, is_sealed, start_sealed
try:
    start_sealed(["true"], Places(), "required")
except SealRefused as refused:
    print(is_sealed(), refused.what)
"""
    command = ["setpriv", "--no-new-privs", sys.executable, "-P", "-c", program]
    environment = module_environment() | {SEALED_VARIABLE: "0 0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("True is required, and finetui was started within a seal"), done.stderr
    assert "namespace, landlock and seccomp" in done.stdout


def test_layers_that_all_hold_around_a_process_are_what_is_required(told: Path) -> None:
    process, report = start_sealed(["true"], Places(), "best")
    process.wait()
    program = (
        "from engine.seal.policy.places import Places\nfrom engine.seal.sealing import start_sealed\n"
        "process, report = start_sealed(['true'], Places(), 'required')\nprint(process.wait(), report.inherited)"
    )
    done = run_sealed([sys.executable, "-P", "-c", program], Places(), timeout_seconds=60)
    if report.missing:
        assert all(each.layer in done.stderr.decode() for each in report.missing)
    else:
        assert done.stdout == b"0 True\n", done.stderr


def test_secrets_and_the_session_s_addresses_are_taken_out_and_switches_stay() -> None:
    secrets = {
        "HF_TOKEN": "hf_x",
        "HUGGING_FACE_HUB_TOKEN": "x",
        "OPENAI_API_KEY": "x",
        "MY_DB_PASSWORD": "x",
        "client_secret": "x",
        "AWS_PROFILE": "x",
        "SSH_AUTH_SOCK": "/run/x",
        "DBUS_SESSION_BUS_ADDRESS": "x",
        "XDG_RUNTIME_DIR": "/run/user/0",
        "https_proxy": "http://x",
        "ALL_PROXY": "x",
        "DISPLAY": ":0",
        "TMUX": "/tmp/x",
        "INDEX": "https://me:pw@host/simple",
        "MYSQL_PWD": "x",
        "DB_PASS": "x",
        "GH_PAT": "x",
        "SLACK_WEBHOOK_URL": "x",
        "STRIPE_KEY": "x",
        "SENTRY_DSN": "x",
        "SVC_CREDENTIALS": "x",
        "REGISTRY_AUTH": "x",
        "PYTHONSTARTUP": "/x",
    }
    kept = {
        "FINETUI_CHANNEL": "3",
        "FINETUI_API_TOKEN_TEST": "ours",
        "TOKENIZERS_PARALLELISM": "false",
        "LD_PRELOAD": "/x.so",
        "PYTHONPATH": "/x",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "0",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "PATH": "/usr/bin",
        "LANG": "C.UTF-8",
        "ADDRESS": "https://host/simple",
        "PWD": "/x",
        "OLDPWD": "/x",
        "GIT_AUTHOR_NAME": "A. N. Other",
        "NCCL_BYPASS": "1",
    }
    found = sealed_environment(secrets | kept)
    assert kept.items() <= found.items()
    assert secrets.keys().isdisjoint(found)
    assert found["HF_HUB_OFFLINE"] == "1"


def test_what_is_given_is_read_and_written_and_what_is_not_is_not_there(told: Path) -> None:
    process, report = start_sealed(["true"], Places(), "best")
    process.wait()
    if not {"namespace", "landlock"} & set(report.held):
        pytest.skip(f"this kernel closes no files: {report.missing}")
    (told / "given").write_text("given")
    (told / "other").write_text("other")
    program = """
import sys
given, other, writable = sys.argv[1:]
print(open(given).read())
open(writable + "/made", "w").write("made")
for path, mode in ((given, "a"), (other, "r")):
    try:
        open(path, mode)
        print("open")
    except OSError:
        print("closed")
"""
    arguments = [str(told / "given"), str(told / "other"), str(told / "writable")]
    done = run_sealed(
        [sys.executable, "-c", program, *arguments],
        reading_places([told / "given"], write=[told / "writable"]),
        timeout_seconds=60,
    )
    assert done.stdout.split() == [b"given", b"closed", b"closed"], done.stderr.decode()
    assert (told / "writable" / "made").read_text() == "made"


def test_the_process_is_the_command_itself_with_its_pipes_and_descriptors(told: Path) -> None:
    ours, theirs = os.pipe()
    program = "import os, sys; os.write(int(sys.argv[1]), sys.stdin.buffer.read()); print(os.getpid(), os.getsid(0))"
    process, report = start_sealed(
        [sys.executable, "-c", program, str(theirs)],
        Places(),
        "best",
        pass_fds=[theirs],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    os.close(theirs)
    output, _ = process.communicate("passed on")
    assert output.split() == [str(process.pid)] * 2
    assert os.read(ours, 100) == b"passed on"
    os.close(ours)
    assert report.level == "best" and [each.layer for each in report.layers] == ALL.split(",")


def test_a_required_layer_that_is_missing_starts_nothing(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUI_SEAL_WITHOUT", "landlock")
    command = ["touch", str(told / "mark")]
    with pytest.raises(SealRefused, match="landlock") as refused:
        start_sealed(command, reading_places((), write=[told]), "required", stdin=subprocess.PIPE)
    assert ending_of_error(refused.value).cause == "unsealed" and refused.value.fix
    assert not (told / "mark").exists()
    process, report = start_sealed(command, reading_places((), write=[told]), "best")
    assert process.wait() == 0 and (told / "mark").exists()
    assert "landlock" in [each.layer for each in report.missing]


def test_off_is_the_command_as_it_is(told: Path) -> None:
    process, report = start_sealed(
        [sys.executable, "-c", "import os; print(os.environ['HF_TOKEN'])"],
        Places(),
        "off",
        env={**os.environ, "HF_TOKEN": "kept"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.communicate()[0] == "kept\n" and not report.layers


def test_a_command_that_is_not_there_is_told_as_popen_tells_it(told: Path) -> None:
    for name in ("finetui-is-not-there", str(told / "nor-this")):
        with pytest.raises(FileNotFoundError):
            start_sealed([name], Places(), "best")
    (told / "text").write_text("no program")
    with pytest.raises(PermissionError):
        start_sealed([str(told / "text")], Places(), "best")


def test_a_launcher_that_dies_is_a_problem_at_every_level(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (told / "launcher.py").write_text("import os; os.kill(os.getpid(), 9)")
    monkeypatch.setattr(sealing, "_LAUNCHER", told / "launcher.py")
    for level in ("best", "required"):
        with pytest.raises(SealRefused, match=r"SIGKILL.*nothing was started"):
            start_sealed(["true"], Places(), level, stdout=subprocess.PIPE)


def test_a_launcher_that_takes_nothing_in_is_given_up(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More is written than a pipe holds, which would wait for a reader."""
    (told / "launcher.py").write_text("import signal; signal.pause()")
    monkeypatch.setattr(sealing, "_LAUNCHER", told / "launcher.py")
    monkeypatch.setattr(sealing, "_REPORT_SECONDS", 0.2)
    monkeypatch.setattr(sealing, "_LAST_SECONDS", 0.1)
    many = Places(read=tuple(f"/nowhere/{number}" for number in range(20_000)))
    with pytest.raises(SealRefused, match="did not answer"):
        start_sealed(["true"], many, "best")


def test_what_python_compiles_is_kept_where_it_cannot_be_kept_beside_the_sources(
    told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (environment, compiling):
        monkeypatch.setattr(module, "is_compiled", lambda: False)
    monkeypatch.setattr(compiling, "_MODULES", ("slow_to_compile",))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (told / "packages").mkdir()
    source = told / "packages" / "slow_to_compile.py"
    source.write_text("HERE = __cached__")
    monkeypatch.setenv("PYTHONPATH", str(told / "packages"))
    monkeypatch.syspath_prepend(str(told / "packages"))
    command = [sys.executable, "-P", "-c", "import os, slow_to_compile as it; print(it.HERE, os.path.exists(it.HERE))"]

    def found(places: Places) -> list[str]:
        return run_sealed(command, places, timeout_seconds=60).stdout.decode().split()

    # A run's own processes would run what others of them left there, and may not write it.
    (told / "finetui/cache/libraries/bytecode").mkdir(parents=True)
    where, kept = found(computing_places("a-run"))
    assert Path(where).is_relative_to(told / "finetui/cache/libraries/bytecode") and kept == "False"
    compile_libraries()
    assert [*map(found, (computing_places("a-run"), Places()))] == [[where, "True"]] * 2
    # It is made once for each version of the source.
    made = Path(where).stat().st_mtime_ns
    compile_libraries()
    assert Path(where).stat().st_mtime_ns == made
    os.utime(source, (1_000_000_000, 1_000_000_000))
    compile_libraries()
    assert Path(where).stat().st_mtime_ns > made


def test_what_libraries_compile_for_a_run_no_other_run_sees(told: Path) -> None:
    program = "import os, sys\nopen(os.environ['TORCHINDUCTOR_CACHE_DIR'] + sys.argv[1], sys.argv[2])"
    one, other = (computing_places(name) for name in ("one", "other"))
    process, report = start_sealed(["true"], Places(), "best")
    process.wait()
    if not {"namespace", "landlock"} & set(report.held):
        pytest.skip(f"this kernel closes no files: {report.missing}")

    def opens(places: Places, path: str, mode: str) -> bool:
        command = [sys.executable, "-I", "-S", "-c", program, path, mode]
        return run_sealed(command, places, timeout_seconds=60).returncode == 0

    assert opens(one, "-planted", "w") and opens(one, "-planted", "r")
    others = "/../../one/inductor-planted"
    (told / "finetui/cache/libraries/runs/other/inductor").mkdir()
    assert not opens(other, others, "r") and not opens(other, others, "w")
    assert not opens(computing_places(), "/../../runs/one/inductor-planted", "r")


def test_a_try_to_get_out_is_told_in_the_log(told: Path) -> None:
    program = (
        "from engine.seal.proof.guarding import guard_to_log; guard_to_log()\n"
        "import socket\n"
        "try: socket.create_connection(('127.0.0.1', 9))\n"
        "except OSError: print('refused')"
    )
    done = run_sealed([sys.executable, "-P", "-c", program], Places(), timeout_seconds=60)
    assert done.stdout == b"refused\n"
    assert b"127.0.0.1" in done.stderr and b"was tried" in done.stderr


def test_tries_are_heard_with_file_and_line_or_by_the_kernel_and_counted(told: Path) -> None:
    script = told / "loader.py"
    script.write_text(
        "import ctypes, socket, sys\n"
        "from engine.run.sealing.lines import tell_from_environment\n"
        "from engine.seal.proof.guarding import guard_to_log\n"
        "guard_to_log(tell_from_environment())\n"
        "for line in sys.stdin:\n"
        "    for attempt in (lambda: ctypes.CDLL(None).socket(10, 1, 0), socket.socket):\n"
        "        try: attempt()\n"
        "        except OSError: pass\n"
        "    print(flush=True)\n"
    )
    threads = set(threading.enumerate())
    hearing = Hearing()
    command, pipe = [sys.executable, "-P", str(script)], subprocess.PIPE
    process, report = hearing.start(command, Places(read=(str(script),)), "best", stdin=pipe, stdout=pipe)
    counts = []
    for _ in range(10):
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        counts.append(hearing.count)  # of all that it tried before it wrote that line
    process.communicate()
    assert process.returncode == 0
    # Nobody listens on once nobody is left who could try.
    wait_until(lambda: set(threading.enumerate()) <= threads)
    if "seccomp" not in report.held:
        pytest.skip(f"this kernel has no seccomp: {report.missing}")
    facts = hearing.facts()
    assert counts == list(range(2, 22, 2)) and facts["count"] == 20, (counts, facts)
    by_guard, by_kernel = sorted(facts["tried"])
    assert "loader.py:7" in by_guard and by_kernel.startswith("socket(AF_INET6, SOCK_STREAM), by ")
    assert hearing.news().startswith("It tried to reach a network 20 times, and was refused: ") and not hearing.news()


def test_a_request_that_no_file_and_no_pipe_holds_at_once_gets_through(told: Path) -> None:
    """What a process is limited to write to files is no limit to what its child is shown."""
    paths = [told / f"{number:04}-{'long' * 40}" for number in range(700)]
    for path in paths:
        path.touch()
    program = "import os, sys; print(sum(os.path.exists(path) for path in sys.stdin.read().split()))"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
    try:
        shown = " ".join(map(str, paths)).encode()
        done = run_sealed([sys.executable, "-c", program], reading_places(paths), input=shown, timeout_seconds=60)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert done.stdout == b"700\n", done.stderr
