"""The guard names the line that tried to get out, and the battery counts nothing as refused that was not."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from fault_ledger import Ledger
from waiting import wait_until

from engine.seal.proof.listener import Listener

TREE = Path(__file__).parents[3]
# Tells each try as one JSON line on stdout, and what became of the caller.
INSTALL = """
import json, os, sys
sys.path.insert(0, {tree!r})
from engine.seal.proof.guard import install
def tell(what, where): os.write(1, json.dumps([what, where]).encode() + b"\\n")
install(tell, loopback={loopback})
"""


def tries(tmp_path: Path, code: str, *, loopback: bool = False) -> list[list[str]]:
    """What the guard told of a script, which ends without an error."""
    script = tmp_path / "hostile" / "script.py"
    script.parent.mkdir(exist_ok=True)
    script.write_text(INSTALL.format(tree=str(TREE), loopback=loopback) + textwrap.dedent(code))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("urllib.request.urlopen('http://data.example/secret?key=1')", "look-up of data.example port 80"),
        ("socket.create_connection(('192.0.2.1', 81))", "look-up of 192.0.2.1 port 81"),
        ("socket.gethostbyname('data.example')", "look-up of data.example"),
        ("socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", "socket(AF_INET)"),
        ("socket.socket(socket.AF_INET6)", "socket(AF_INET6)"),
    ],
)
def test_a_try_is_refused_and_told_with_its_line(tmp_path: Path, code: str, what: str, ledger: Ledger) -> None:
    told = tries(
        tmp_path,
        f"""
        import errno, socket, urllib.request, urllib.error
        try:
            {code}
        except OSError as error:
            assert getattr(error, "reason", error).errno == errno.ENETUNREACH, error
        else:
            sys.exit("it was let through")
        """,
    )

    ledger.injected(f"way out tried in Python: {what}")
    line = 2 + len(INSTALL.splitlines()) + 2
    assert told == [[what, f"hostile/script.py:{line}"]]


def test_a_library_is_named_with_the_line_of_ours_that_led_there(tmp_path: Path) -> None:
    library = tmp_path / "site-packages" / "hostile_library.py"
    library.parent.mkdir()
    library.write_text("import socket\n\ndef load(reader):\n    socket.getaddrinfo('data.example', 443)\n")
    told = tries(
        tmp_path,
        f"""
        sys.path.insert(0, {str(library.parent)!r})
        import hostile_library
        ours = compile("def lead(load):\\n    load(None)\\n", {str(TREE / "engine" / "leading.py")!r}, "exec")
        names = {{}}
        exec(ours, names)
        try:
            names["lead"](hostile_library.load)
        except OSError:
            pass
        """,
    )

    assert told == [["look-up of data.example port 443", "hostile_library.py:4, called from engine/leading.py:2"]]


def test_forked_children_and_threads_are_heard_too(tmp_path: Path) -> None:
    told = tries(
        tmp_path,
        """
        import socket, threading
        def out():
            try:
                socket.gethostbyname("data.example")
            except OSError:
                pass
        if os.fork() == 0:
            out()
            os._exit(0)
        os.wait()
        thread = threading.Thread(target=out)
        thread.start()
        thread.join()
        """,
    )

    assert [what for what, _ in told] == ["look-up of data.example"] * 2


def test_what_stays_on_the_machine_is_let_through(tmp_path: Path) -> None:
    code = """
        import multiprocessing, socket
        ours, theirs = socket.socketpair()
        ours.sendall(b"x")
        assert theirs.recv(1) == b"x"
        {more}
        """
    assert tries(tmp_path, code.format(more="assert not socket.has_ipv6")) == []
    server = "server = socket.create_server(('127.0.0.1', 0)); socket.create_connection(server.getsockname()).close()"
    assert tries(tmp_path, code.format(more=server), loopback=True) == []


def test_only_who_says_the_nonce_is_a_hit(tmp_path: Path) -> None:
    import socket

    listener = Listener((tmp_path,))
    try:
        assert listener.control()
        address = listener.address("tcp")
        assert address is not None and listener.hits == 0
        for said in (b"GET / HTTP/1.0\r\n\r\n", f"{listener.nonce}\n".encode()):
            with socket.create_connection(address) as visitor:
                visitor.sendall(said)
        # The kernel may be a moment late with what was said.
        wait_until(lambda: listener.take() or listener.hits + listener.strays == 2)
        assert (listener.hits, listener.strays) == (1, 1)
    finally:
        listener.close()


def test_a_door_that_stays_shut_is_no_control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a firewall to keep even this machine from itself, silence would say nothing."""
    import engine.seal.proof.listener as module

    monkeypatch.setattr(module, "_CONTROL_SECONDS", 0.2)
    listener = Listener((tmp_path,))
    try:
        (tmp_path / "stream").unlink()
        assert not listener.control()
    finally:
        listener.close()


@pytest.mark.parametrize(
    ("probe", "kind"),
    [
        ("def probe(aims): raise OSError(13, '')", "refused"),
        ("def probe(aims): raise OSError(14, '')", "open"),  # EFAULT: of the attempt itself, which says nothing
        ("def probe(aims): raise TypeError('a mistake in the probe')", "open"),
        ("def probe(aims): raise TimeoutError", "open"),
        ("def probe(aims): return 'connected'", "open"),
        ("def probe(aims): os._exit(0)", "open"),
        ("def probe(aims): os.kill(os.getpid(), signal.SIGKILL)", "open"),
        ("def probe(aims): os.kill(os.getpid(), signal.SIGSYS)", "refused"),
        ("def probe(aims): signal.pause()", "open"),
        ("def probe(aims): raise Skip('none here')", "skipped"),
    ],
)
def test_nothing_is_called_refused_that_was_not(probe: str, kind: str) -> None:
    # Only what never answers is given up after a moment: else a busy machine would be taken for an open way.
    seconds = 0.5 if "pause" in probe else 20.0
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(TREE)!r})
from engine.seal.proof.probes import __main__ as battery
from engine.seal.proof.probes.aims import Aims
from engine.seal.proof.probes.calls import Skip
{probe}
battery.WAYS_OUT, battery.needs.NEEDS, battery._SECONDS = (("it", probe),), (), {seconds}
given, to_battery = os.pipe()
os.write(to_battery, Aims(nonce="n", tcp=("127.0.0.1", 1), udp=("127.0.0.1", 1)).to_json().encode())
os.close(to_battery)
battery.main(given, 1)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    names, answer = (json.loads(line) for line in done.stdout.splitlines())
    assert (names, answer[:2]) == (["it"], ["it", kind])
