"""What of the file system a sealed process sees: what was named, under the names by which it was called."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from launching import ANOTHER_USER, Account
from test_layers import require_here

LOOK = """
import json, os, sys
def look(path):
    try:
        if os.path.isdir(path): return sorted(os.listdir(path))
        with open(path) as file: return file.read()
    except OSError as error: return error.strerror
def write(path):
    try:
        with open(path, "a") as file: file.write("+")
        return "written"
    except OSError as error: return error.strerror
print(json.dumps([look(path) for path in json.loads(sys.argv[1])] + [write(path) for path in json.loads(sys.argv[2])]))
"""
MISSING, DENIED, READ_ONLY = "No such file or directory", "Permission denied", "Read-only file system"


@pytest.fixture(autouse=True)
def _namespace() -> None:
    require_here("namespace")


def looked(account: Account, look: Sequence[Path | str], touch: Sequence[Path | str] = (), **options: Any) -> list[Any]:
    """What a process that has the namespace alone finds at the paths, and what becomes of its writing."""
    words = [json.dumps([str(path) for path in paths]) for paths in (look, touch)]
    options = {"only": ["namespace"], **options}
    return account.sealed([account.python, "-I", "-S", "-c", LOOK, *words], **options).answer


def owned(account: Account, *parts: str, text: str | None = None) -> Path:
    """A folder of the account's, or a file with `text`, below its own."""
    path = account.folder.joinpath(*parts)
    folder = path if text is None else path.parent
    folder.mkdir(parents=True, exist_ok=True)
    if text is not None:
        path.write_text(text)
    for each in (path, *path.parents):
        if each == account.folder:
            break
        os.chown(each, account.user, -1)
    return path


@pytest.mark.parametrize("only", [["namespace"], ["landlock"], ["namespace", "landlock"]], ids="+".join)
def test_what_may_be_read_is_not_written_and_the_rest_is_not_there(somebody: Account, only: list[str]):
    """Alike by the namespace and by Landlock, alone and together, in a home below /tmp."""
    require_here(*only)
    read, write = owned(somebody, "read", "it", text="data"), owned(somebody, "write", "it", text="run")
    other = owned(somebody, "other", "it", text="secret")
    places = {"read": [read.parent], "write": [write.parent], "only": only}
    found = looked(somebody, [read, write, other], [read, write, write.parent / "new", other], **places)
    assert found[:2] == ["data", "run"] and found[2] in (MISSING, DENIED)
    assert (
        found[3] in (READ_ONLY, DENIED) and found[4:6] == ["written"] * 2 and found[6] in (MISSING, DENIED, READ_ONLY)
    )
    assert (read.read_text(), write.read_text(), other.read_text()) == ("data", "run+", "secret")


def test_names_lead_where_they_led_by_links_in_the_middle_and_at_the_end(somebody: Account):
    """model -> store/model; store/model/snapshot/weights -> ../../blobs/1, as caches of models are laid out."""
    blob = owned(somebody, "disk", "store", "blobs", "1", text="weights")
    snapshot = owned(somebody, "disk", "store", "model", "snapshot")
    (snapshot / "weights").symlink_to("../../blobs/1")
    (somebody.folder / "store").symlink_to(somebody.folder / "disk" / "store")
    (somebody.folder / "model").symlink_to("store/model")
    called = somebody.folder / "model" / "snapshot"
    (somebody.folder / "secret").symlink_to(owned(somebody, "keys", "id", text="key"))
    named = [called, called / "weights", blob, somebody.folder / "secret"]
    found = looked(somebody, [called, called / "weights", snapshot / "weights", named[-1], somebody.folder], read=named)
    # A link that is named is there, and shows nothing of what it leads to.
    assert found == [["weights"], "weights", "weights", MISSING, ["disk", "model", "secret", "store"]]


def test_a_place_within_another_has_its_own_rights(somebody: Account):
    """A run's folder is written, but not the journal in it; a model's folder read, but what is measured of it kept."""
    inner = owned(somebody, "model", "measured")
    journal = owned(somebody, "run", "events", text="first")
    places = {"read": [inner.parent, journal], "write": [inner, journal.parent]}
    tried = [inner / "new", inner.parent / "new", journal, journal.parent / "new"]
    assert looked(somebody, [], tried, **places) == ["written", READ_ONLY, READ_ONLY, "written"]
    change = (
        "import os\n"
        f"for step in (lambda: os.remove({str(journal)!r}), lambda: os.replace('new', {str(journal)!r})):\n"
        "    try: step(); print('done')\n"
        "    except OSError as error: print(error.strerror)\n"
    )
    told = somebody.sealed(change, cwd=journal.parent, **{name: places[name] for name in places})
    assert told.output.splitlines() == ["Device or resource busy"] * 2 and journal.read_text() == "first"


def test_scratch_folders_are_private_writable_and_gone_afterwards(somebody: Account):
    probe = f"finetui-{os.getpid()}"
    scratch = [Path(folder) for folder in ("/tmp", "/var/tmp", "/dev/shm")]
    new = [folder / probe for folder in scratch]
    home = {"env": {**os.environ, "HOME": "/home/somebody", "TMPDIR": "/tmp/of/mine"}}
    found = looked(
        somebody, [*scratch, "/home/somebody"], [*new, "/tmp/of/mine/x"], write=["/dev/shm"], cwd="/", **home
    )
    shown = {each for each in (somebody.tree, Path(somebody.python)) if each.is_relative_to("/tmp")}
    assert found[1:4] == [[], [], []] and (shown or found[0] == ["of"])
    assert found[4:] == ["written"] * 4
    assert not any(path.exists() for path in new)


def test_the_working_folder_and_the_program_survive_without_being_named(somebody: Account):
    here = owned(somebody, "here", "below")
    program = owned(somebody, "bin", "program", text="#!/bin/sh\necho $PWD\n")
    program.chmod(0o755)
    told = somebody.sealed([str(program)], only=["namespace"], cwd=here)
    assert (told.status, told.output.strip()) == (0, str(here))
    assert looked(somebody, ["."], cwd=here) == [[]] and looked(somebody, ["."], cwd=here, read=[here.parent]) == [[]]
    gone = owned(somebody, "gone")
    leave = somebody.sealed("import os; print(os.getcwd())", only=["namespace"], cwd=gone, prepare=gone.rmdir)
    assert leave.output == "/\n"


def test_the_kernels_own_settings_cannot_be_written_even_by_root(me: Account):
    require_here("landlock")
    # Opened, and nothing written to them, should they be open.
    tries = (
        "import json, os\nanswers = []\n"
        "for path in ('/proc/sys/kernel/core_pattern', '/proc/sys/vm/drop_caches', '/proc/sysrq-trigger',\n"
        "             '/sys/kernel/mm/ksm/run'):\n"
        "    try: os.close(os.open(path, os.O_WRONLY)); answers.append('opened')\n"
        "    except OSError as error: answers.append(error.strerror)\n"
        "print(json.dumps(answers))"
    )
    for layers in (["namespace"], ["landlock"]):
        answers = me.sealed(tries, only=layers, read=["/sys"]).answer
        assert len(answers) == 4 and set(answers) <= {READ_ONLY, DENIED, MISSING}, layers


def test_the_whole_machine_may_be_named_and_is_shown_but_not_written(me: Account):
    found = looked(me, ["/", "/tmp"], ["/etc/written"], read=["/"], write=[me.folder], cwd="/")
    assert {"usr", "etc", "proc"} <= set(found[0]) and found[2] == READ_ONLY
    named = {each.relative_to("/tmp").parts[0] for each in (me.folder, me.tree) if each.is_relative_to("/tmp")}
    assert set(found[1]) <= named, "scratch is private"


def test_what_is_not_there_is_passed_over_unless_it_was_to_be_written(me: Account):
    told = me.sealed(["true"], only=["namespace"], read=[me.folder / "gone"], write=[me.folder / "never"])
    (namespace,) = [each for each in told.report.layers if each.held]
    assert told.status == 0 and namespace.why == f"{me.folder}/never is not shown: {MISSING}"


def test_root_reads_files_of_others_and_nothing_else_is_left_of_its_powers(me: Account):
    if os.geteuid() != 0:
        pytest.skip("only root has files of others to read")
    theirs = owned(me, "theirs", text="their data")
    theirs.chmod(0o600)
    os.chown(theirs, ANOTHER_USER, ANOTHER_USER)
    tries = (
        "import json, os, ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nanswers = []\n"
        f"answers.append(open({str(theirs)!r}).read())\n"
        f"os.chmod({str(theirs)!r}, 0o640)\n"
        "for name, step in {'chown': lambda: os.chown('/tmp', 1, 1), 'user': lambda: os.setuid(1),\n"
        "        'device': lambda: os.mknod('/tmp/disk', 0o60600, os.makedev(7, 0)), 'nice': lambda: os.nice(-1),\n"
        "        'root': lambda: os.chroot('/')}.items():\n"
        "    try: step(); answers.append(name)\n"
        "    except OSError as error: answers.append(error.errno)\n"
        "print(json.dumps(answers))"
    )
    # By Landlock and the filter too, and with none: capabilities go whatever holds.
    for layers in (["namespace", "landlock", "seccomp"], ["namespace"], []):
        found = me.sealed(tries, only=layers, read=[me.folder], write=[theirs]).answer
        assert found[0] == "their data" and all(isinstance(each, int) for each in found[1:]), found


def test_devices_and_proc_can_be_used_and_not_be_shut_to_everybody(somebody: Account):
    """They are the machine's own, and root's to shut."""
    require_here("namespace")
    tries = (
        "import errno, json, os\nanswers = []\n"
        "for path in ('/dev/null', '/dev/urandom', '/proc', '/proc/sys/kernel/core_pattern'):\n"
        "    try: os.chmod(path, os.stat(path).st_mode & 0o7777); answers.append('done')\n"
        "    except OSError as error: answers.append(errno.errorcode[error.errno])\n"
        "with open('/dev/null', 'w') as file: answers.append(file.write('x'))\n"
        "print(json.dumps(answers))"
    )
    devices = {"request": {"devices": ["/dev/null", "/dev/urandom"]}}
    found = somebody.sealed(tries, only=["namespace"], read=["/proc"], **devices).answer
    assert found == ["EROFS"] * 4 + [1]
