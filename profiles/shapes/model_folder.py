"""What lies in a model folder: weight files, tokenizer, and what the folder is instead of a model."""

from __future__ import annotations

from pathlib import Path

from profiles.bounded_files import file_size, looks_wrong, read_bytes, read_json, read_tail
from profiles.problem import Problem, printable
from profiles.shapes.refusals import code_problem
from profiles.shapes.safetensors_header import COPY_AGAIN, Tensor, read_header

_INDEX = "model.safetensors.index.json"
_INDEX_LIMIT_BYTES = 16 << 20
_TOKENIZER_CONFIG_LIMIT_BYTES = 16 << 20
_ADAPTER_CONFIG_LIMIT_BYTES = 1 << 20
_ENTRIES_LIMIT = 10_000
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def require_model_folder(folder: Path) -> None:
    """Raise Problem, saying what it is instead, unless `folder` is a folder with a config.json."""
    try:
        if not folder.exists():
            raise Problem(str(folder), "there is no such folder", "Check the path.")
        if folder.is_file():
            raise Problem(str(folder), "is a file", f"Give the folder it lies in: {folder.parent}")
        if not folder.is_dir():
            raise Problem(str(folder), "is not a folder", "Give the folder that holds the model.")
        names = _names(folder)
        if "config.json" in names:
            return
        inner = [path.parent for pattern in ("*", "snapshots/*") for path in folder.glob(f"{pattern}/config.json")]
    except OSError as error:
        raise Problem(str(folder), f"cannot be read: {error.strerror}", "Check its permissions.") from None
    if "adapter_config.json" in names:
        raise Problem(str(folder), f"is an adapter, not a model{_base_of(folder)}", "Give the base model's folder.")
    if any(name.endswith(".gguf") for name in names):
        raise Problem(
            str(folder),
            "holds only GGUF files, which cannot be fine-tuned; need safetensors",
            "Choose the original model in safetensors format.",
        )
    if inner:
        shown = ", ".join(printable(path.relative_to(folder)) for path in sorted(inner)[:3])
        raise Problem(str(folder), "holds no model itself, but folders in it do", f"Give one of them: {shown}")
    if not names:
        raise Problem(str(folder), "is empty", "Give the folder that holds the model.")
    raise Problem(str(folder), "has no config.json, so it is no model", "Give the folder that holds config.json.")


def has_weights(folder: Path) -> bool:
    """Whether weights that could be trained lie in `folder`, whole or not. Raises Problem for an unreadable folder."""
    return any(name.endswith(".safetensors") or name == _INDEX for name in _names(folder))


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of the folder's safetensors files, from their headers alone. Raises Problem."""
    names = _names(folder)
    if "model.safetensors" in names:
        return read_header(folder / "model.safetensors")
    if _INDEX in names:
        return _read_shards(folder)
    if any(name.endswith(".safetensors") for name in names):
        found = next(name for name in sorted(names) if name.endswith(".safetensors"))
        raise Problem(
            str(folder),
            f"has {printable(found)} but neither model.safetensors nor {_INDEX}",
            f"Copy {_INDEX} too, or rename a single file to model.safetensors.",
        )
    if pickles := sorted(name for name in names if name.endswith(_PICKLES)):
        raise Problem(
            str(folder),
            f"has its weights only as pickles ({printable(pickles[0])}), which can run code when opened",
            "Choose the safetensors version of this model, or convert it where you trust the file.",
        )
    if any(name.endswith(".gguf") for name in names):
        raise Problem(
            str(folder),
            "has its weights only as GGUF, which cannot be fine-tuned; need safetensors",
            "Choose the original model in safetensors format.",
        )
    raise Problem(str(folder), "has no weights (no model.safetensors)", "Copy the model's weights into it.")


def read_tokenizer(folder: Path) -> tuple[str | None, bool, list[Problem]]:
    """(tokenizer file or None, whether there is a chat template, what is wrong with either)."""
    problems = []
    names = _names(folder)
    tokenizer = next((name for name in _TOKENIZER_FILES if name in names), None)
    if tokenizer is None:
        problems.append(
            Problem(
                str(folder),
                "has no tokenizer",
                "Copy tokenizer.json and tokenizer_config.json beside config.json.",
            )
        )
    else:
        try:
            _check_tokenizer_file(folder / tokenizer)
        except Problem as problem:
            problems.append(problem)
    has_template = "chat_template.jinja" in names
    if "tokenizer_config.json" in names:
        path = folder / "tokenizer_config.json"
        try:
            values = read_json(path, _TOKENIZER_CONFIG_LIMIT_BYTES)
            has_template = has_template or bool(values.get("chat_template"))
            if auto_map := values.get("auto_map"):
                problems.append(code_problem(path, auto_map))
        except Problem as problem:
            problems.append(problem)
    return tokenizer, has_template, problems


def _check_tokenizer_file(path: Path) -> None:
    """Raise Problem for what is visible without parsing (tokenizer.json can be 30 MB)."""
    fix = f"Copy {path.name} from the model's source again."
    size = file_size(path)
    if wrong := looks_wrong(path, size):
        raise Problem(str(path), wrong, fix)
    if path.suffix != ".json":
        return
    if not read_bytes(path, 64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        raise Problem(str(path), "is not JSON", fix)
    if not read_tail(path, 64).rstrip().endswith(b"}"):
        raise Problem(str(path), "is cut off: it does not end in }", fix)


def _read_shards(folder: Path) -> dict[str, Tensor]:
    index = folder / _INDEX
    weight_map = read_json(index, _INDEX_LIMIT_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise Problem(str(index), "has no weight_map", COPY_AGAIN)
    shards: dict[str, list[str]] = {}
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise Problem(
                f"{index}, tensor {printable(tensor)}",
                f"names {printable(repr(shard))}, which is no file name here",
                COPY_AGAIN,
            )
        shards.setdefault(shard, []).append(tensor)
    present = _names(folder)
    if absent := sorted(shard for shard in shards if shard not in present):
        others = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise Problem(
            str(index),
            f"names {printable(absent[0])}{others}, which the folder does not have",
            f"Copy the missing weight files ({len(absent)} of {len(shards)}).",
        )
    tensors: dict[str, Tensor] = {}
    for shard, names in sorted(shards.items()):
        header = read_header(folder / shard)
        for name in names:
            if name not in header:
                raise Problem(
                    f"{folder / shard}, tensor {printable(name)}",
                    f"is not in this file, though {_INDEX} says so",
                    COPY_AGAIN,
                )
            tensors[name] = header[name]
    return tensors


def _base_of(folder: Path) -> str:
    try:
        base = read_json(folder / "adapter_config.json", _ADAPTER_CONFIG_LIMIT_BYTES).get("base_model_name_or_path")
    except Problem:
        return ""  # what matters is said: it is an adapter
    return f" (made for {printable(base)})" if isinstance(base, str) and base else ""


def _names(folder: Path) -> set[str]:
    """Names of the folder's entries. Raises Problem for a folder no model would have."""
    try:
        names = {entry.name for entry, _ in zip(folder.iterdir(), range(_ENTRIES_LIMIT + 1), strict=False)}
    except OSError as error:
        raise Problem(str(folder), f"cannot be read: {error.strerror}", "Check its permissions.") from None
    if len(names) > _ENTRIES_LIMIT:
        raise Problem(str(folder), f"holds over {_ENTRIES_LIMIT:,} files", "Give the folder of one model.")
    return names
