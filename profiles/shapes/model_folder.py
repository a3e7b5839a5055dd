"""What lies in a model folder: weight files, tokenizer, and what the folder is instead of a model."""

from __future__ import annotations

import shlex
from pathlib import Path

from profiles.bounded_files import astray, file_size, looks_wrong, read_bytes, read_json, read_tail
from profiles.problem import Problem, printable
from profiles.shapes.refusals import code_problem
from profiles.shapes.safetensors_header import COPY_AGAIN, Tensor, read_header

_INDEX = "model.safetensors.index.json"
INDEX_LIMIT_BYTES = 16 << 20
# The largest of published models: a tokenizer.json of 34 MB, a tokenizer_config.json of 1.2 MB with 7,000 added tokens,
# a chat template of 20 KB.
TOKENIZER_LIMIT_BYTES = 1 << 28
TEMPLATE_LIMIT_BYTES = 1 << 20
SIDE_LIMIT_BYTES = 16 << 20
_ADDED_TOKENS_LIMIT = 100_000
_ADAPTER_CONFIG_LIMIT_BYTES = 1 << 20
# All weight files' together; a mixture of 90,000 tensors in 163 files has some 10 MB of headers.
_TENSORS_LIMIT = 1_000_000
_ENTRIES_LIMIT = 10_000
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_TOKENIZER_CONFIG = "tokenizer_config.json"
_TEMPLATE = "chat_template.jinja"
_TEMPLATE_FOLDERS = ("additional_chat_templates", "chat_templates")
_SIDE_FILES = (
    *("generation_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json"),
    *("preprocessor_config.json", "processor_config.json"),
)
"""JSON that transformers reads besides config.json and the tokenizer's own."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def require_model_folder(folder: Path) -> None:
    """Raise Problem, saying what it is instead, unless `folder` is a folder with a config.json."""
    try:
        if not folder.exists():
            raise Problem(str(folder), "there is no such folder", "Check the path.")
        if folder.is_file():
            raise Problem(str(folder), "is a file", f"Give the folder it lies in: {folder.parent}")
        if not folder.is_dir():
            raise Problem(str(folder), "is not a folder", "Give the folder that holds the model.")
        names = entry_names(folder)
        if "config.json" in names:
            _refuse_strangers(folder, names)
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
    return any(name.endswith(".safetensors") or name == _INDEX for name in entry_names(folder))


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of the folder's safetensors files, from their headers alone. Raises Problem."""
    names = entry_names(folder)
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
    if pickles := sorted(name for name in names if name.endswith(PICKLES)):
        raise Problem(
            str(folder),
            f"has its weights only as pickles ({printable(pickles[0])}), which can run code when opened",
            f"Choose the safetensors version of this model, or convert it: {_convert_command(folder)}",
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
    names = entry_names(folder)
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
    has_template = _TEMPLATE in names
    for path in _templates(folder, names):
        try:
            _check_template(path)
        except Problem as problem:
            problems.append(problem)
    if _TOKENIZER_CONFIG in names:
        path = folder / _TOKENIZER_CONFIG
        try:
            values = read_json(path, SIDE_LIMIT_BYTES)
            has_template = has_template or bool(values.get("chat_template"))
            if auto_map := values.get("auto_map"):
                problems.append(code_problem(path, auto_map))
            _check_added_tokens(path, values.get("added_tokens_decoder"))
        except Problem as problem:
            problems.append(problem)
    return tokenizer, has_template, problems


def check_side_files(folder: Path) -> list[Problem]:
    """What is wrong with the JSON that lies beside config.json and that transformers reads, whatever is in it."""
    problems = []
    names = entry_names(folder)
    for name in (each for each in _SIDE_FILES if each in names):
        try:
            values = read_json(folder / name, SIDE_LIMIT_BYTES)
            if auto_map := values.get("auto_map"):
                problems.append(code_problem(folder / name, auto_map))
        except Problem as problem:
            problems.append(problem)
    return problems


def _convert_command(folder: Path) -> str:
    target = folder.with_name(f"{folder.name}-safetensors")
    return f"finetui convert {shlex.quote(printable(folder, 1000))} --into {shlex.quote(printable(target, 1000))}"


def _refuse_strangers(folder: Path, names: set[str]) -> None:
    """Raise Problem for what would be read as a part of the model, and is none."""
    if "adapter_config.json" in names:
        raise Problem(
            f"{folder}, file adapter_config.json",
            f"lies beside config.json{_base_of(folder)}: that adapter would be laid over the model unasked",
            "Give a folder of the model alone, or merge the two first.",
        )
    for name in sorted(names):
        if (target := astray(folder / name)) is not None:
            raise Problem(
                str(folder / name),
                f"is a link out of the folder, to a file of another name: {printable(target, 400)}",
                "Put the file itself there, if it belongs to the model; else remove the link.",
            )


def _templates(folder: Path, names: set[str]) -> list[Path]:
    found = [folder / _TEMPLATE] if _TEMPLATE in names else []
    for name in _TEMPLATE_FOLDERS:
        if name in names and (folder / name).is_dir():
            found += [folder / name / each for each in sorted(entry_names(folder / name)) if each.endswith(".jinja")]
    return found


def _check_template(path: Path) -> None:
    if (target := astray(path)) is not None:
        what = f"is a link to another file: {printable(target, 400)}"
        raise Problem(str(path), what, "Put the template itself there.")
    if (size := file_size(path)) > TEMPLATE_LIMIT_BYTES:
        raise Problem(
            str(path), f"has {size:,} bytes, so it is no chat template", "Copy it from the model's source again."
        )


def _check_added_tokens(path: Path, added: object) -> None:
    # transformers adds them one after another, which takes the longer the more there are.
    if isinstance(added, dict | list) and len(added) > _ADDED_TOKENS_LIMIT:
        raise Problem(
            f"{path}, field added_tokens_decoder",
            f"has {len(added):,} tokens; no tokenizer adds over {_ADDED_TOKENS_LIMIT:,}",
            "Copy the tokenizer's files from the model's source again.",
        )


def _check_tokenizer_file(path: Path) -> None:
    """Raise Problem for what is visible without parsing (tokenizer.json can be 30 MB)."""
    fix = f"Copy {path.name} from the model's source again."
    size = file_size(path)
    if wrong := looks_wrong(path, size):
        raise Problem(str(path), wrong, fix)
    if size > TOKENIZER_LIMIT_BYTES:
        raise Problem(str(path), f"has {size:,} bytes; no tokenizer needs over {TOKENIZER_LIMIT_BYTES:,}", fix)
    if path.suffix != ".json":
        return
    if not read_bytes(path, 64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        raise Problem(str(path), "is not JSON", fix)
    if not read_tail(path, 64).rstrip().endswith(b"}"):
        raise Problem(str(path), "is cut off: it does not end in }", fix)


def _read_shards(folder: Path) -> dict[str, Tensor]:
    index = folder / _INDEX
    weight_map = read_json(index, INDEX_LIMIT_BYTES).get("weight_map")
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
    present = entry_names(folder)
    if absent := sorted(shard for shard in shards if shard not in present):
        others = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise Problem(
            str(index),
            f"names {printable(absent[0])}{others}, which the folder does not have",
            f"Copy the missing weight files ({len(absent)} of {len(shards)}).",
        )
    tensors: dict[str, Tensor] = {}
    count = 0
    for shard, names in sorted(shards.items()):
        header = read_header(folder / shard)
        count += len(header)
        if count > _TENSORS_LIMIT:
            raise Problem(str(index), f"leads to over {_TENSORS_LIMIT:,} tensors, which no model has", COPY_AGAIN)
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


def entry_names(folder: Path) -> set[str]:
    """Names of the folder's entries. Raises Problem for a folder no model would have."""
    try:
        names = {entry.name for entry, _ in zip(folder.iterdir(), range(_ENTRIES_LIMIT + 1), strict=False)}
    except OSError as error:
        raise Problem(str(folder), f"cannot be read: {error.strerror}", "Check its permissions.") from None
    if len(names) > _ENTRIES_LIMIT:
        raise Problem(str(folder), f"holds over {_ENTRIES_LIMIT:,} files", "Give the folder of one model.")
    return names
