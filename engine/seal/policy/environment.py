"""The environment of a sealed process: without secrets and without the addresses of a person's session."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from engine.home import CACHE_VARIABLE, cache_root
from engine.offline import OFFLINE_ENVIRONMENT
from engine.seal.policy.caches import bytecode, library_caches, scratch

_OURS = "FINETUI_"
# TOKENIZERS_PARALLELISM is no secret.
_SECRET = re.compile(
    r"TOKEN(?!IZER)|SECRET|PASSWORD|PASSWD|PASSPHRASE|APIKEY|ACCESSKEY|PRIVATEKEY|CREDENTIAL|COOKIE|AUTHORIZATION",
    re.IGNORECASE,
)
# What stands in longer words that are none (BYPASS, AUTHOR, KEYBOARD, PATH), but not between underscores.
_SECRET_WORDS = frozenset(
    (
        *("PASS", "PASSFILE", "PGPASSFILE", "PW", "PWD", "PAT", "KEY", "KEYS", "DSN", "WEBHOOK", "WEBHOOKS"),
        *("CREDS", "AUTH", "OAUTH", "JWT", "SSHPASS"),
    )
)
_WORD = re.compile(r"[A-Z]+")
_FOLDERS = ("PWD", "OLDPWD")
_SESSION_PREFIXES = (
    *("AWS_", "AZURE_", "GOOGLE_", "GCP_", "GCLOUD_", "CLOUDSDK_", "GITHUB_", "GITLAB_", "KUBE", "DOCKER_", "VAULT_"),
    *("SSH_", "GPG_", "GNUPG", "DBUS_", "KRB5", "OPENAI_", "ANTHROPIC_", "HUGGING_FACE_", "PIP_", "UV_", "NPM_"),
    *("XDG_SESSION_", "XDG_RUNTIME_DIR", "WAYLAND_", "GNOME_", "KDE_", "PULSE_", "PIPEWIRE_", "TMUX", "LISTEN_"),
)
_SESSION_NAMES = frozenset(
    (
        *("DISPLAY", "XAUTHORITY", "ICEAUTHORITY", "SESSION_MANAGER", "STY", "BROWSER", "NOTIFY_SOCKET"),
        *("WATCHDOG_PID", "WATCHDOG_USEC", "JOURNAL_STREAM", "INVOCATION_ID", "MAIL", "PYTHONSTARTUP", "PYTHONINSPECT"),
        *("BASH_ENV", "ENV", "PROMPT_COMMAND", "HISTFILE", "CURL_HOME", "WGETRC", "NETRC"),
    )
)
_WITH_LOGIN = re.compile(r"://[^/\s]*@")


def sealed_environment(environment: Mapping[str, str], libraries: Path | None = None) -> dict[str, str]:
    """`environment` for a sealed process: what it keeps its secrets and reaches its session by taken out, the offline
    switches set, and libraries shown to the folder that they may write to, if there is one. The folders of finetui stay
    what they are here."""
    kept = {name: value for name, value in environment.items() if not _is_taken_out(name, value)}
    libraries = libraries or library_caches()
    return {
        **OFFLINE_ENVIRONMENT,  # which whoever starts a module of ours has set already, some of it another way
        **kept,
        CACHE_VARIABLE: str(cache_root().absolute()),
        **({} if is_compiled() else {"PYTHONPYCACHEPREFIX": str(bytecode())}),
        **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch().absolute())),
        **{name: str((libraries / folder).absolute()) for name, folder in _LIBRARY_FOLDERS.items()},
    }


@lru_cache(maxsize=1)
def is_compiled() -> bool:
    """Whether the libraries lie compiled beside their sources, as pip leaves them and uv does not. Each process would
    else compile them anew, for ten seconds and more, since it cannot write there."""
    try:
        spec = importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        return True  # there is nothing to compile
    return spec is None or spec.cached is None or Path(spec.cached).exists()


_LIBRARY_FOLDERS = {
    "XDG_CACHE_HOME": "",
    "HF_HOME": "huggingface",
    "HF_MODULES_CACHE": "huggingface/modules",
    "TORCH_HOME": "torch",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TORCH_EXTENSIONS_DIR": "torch_extensions",
    "TRITON_CACHE_DIR": "triton",
    "TRITON_HOME": "triton",
    "CUDA_CACHE_PATH": "cuda",
    "NUMBA_CACHE_DIR": "numba",
    "MPLCONFIGDIR": "matplotlib",
}


def _is_taken_out(name: str, value: str) -> bool:
    if name.startswith(_OURS) or name in OFFLINE_ENVIRONMENT:
        return False
    return (
        _SECRET.search(name) is not None
        or (name not in _FOLDERS and not _SECRET_WORDS.isdisjoint(_WORD.findall(name.upper())))
        or name.upper().endswith("_PROXY")
        or name.startswith(_SESSION_PREFIXES)
        or name in _SESSION_NAMES
        or _WITH_LOGIN.search(value) is not None
    )
