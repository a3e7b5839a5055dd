"""What of this installation works, found out by a sealed child process: nothing is looked up anywhere."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from engine.modules import module_command
from engine.seal.policy.places import computing_places
from engine.seal.sealing import run_sealed
from profiles.problem import Problem, printable

# Importing everything takes some 6 s, on a busy machine or a network disk a minute.
_TIMEOUT_SECONDS = 300.0


def try_installed(modules: Sequence[str]) -> dict[str, Any]:
    """What `installed_child` tells of these modules. Raises Problem when it died or took too long."""
    command = module_command("engine.airgap.installed_child", json.dumps(list(modules)))
    try:
        child = run_sealed(command, computing_places(), timeout_seconds=_TIMEOUT_SECONDS)
        return json.loads(child.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        what = f"were not imported within {_TIMEOUT_SECONDS:.0f} s"
    except OSError as error:
        what = f"could not be tried: {error.strerror}"
    except (IndexError, ValueError):
        last = (child.stderr.decode(errors="replace").splitlines() or ["nothing was said"])[-1]
        what = f"ended the process that imported them, with {child.returncode}: {printable(last, 200)}"
    raise Problem("the libraries", what, "Install again from the bundle.")
