"""The files by which sentence-transformers knows how a model's hidden states become a text's vector. No torch.

Named as every version of it since 2.0 reads them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

_POOLING = "1_Pooling"
_MODULES = "sentence_transformers.models"


def write_sentence_files(folder: Path, *, width: int, pooling: str, longest_tokens: int) -> None:
    """Write them into the folder of a model or an adapter. Raises OSError.

    width: the hidden size; pooling: "mean" or "last"; longest_tokens: where a text is cut.
    """
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{_MODULES}.Transformer"},
        {"idx": 1, "name": "1", "path": _POOLING, "type": f"{_MODULES}.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{_MODULES}.Normalize"},
    ]
    (folder / _POOLING).mkdir()
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": longest_tokens, "do_lower_case": False})
    _write(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})
    _write(
        folder / _POOLING / "config.json",
        {
            "word_embedding_dimension": width,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": pooling == "mean",
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
            "pooling_mode_weightedmean_tokens": False,
            "pooling_mode_lasttoken": pooling == "last",
            "include_prompt": True,
        },
    )


def copy_sentence_files(source: Path, into: Path) -> None:
    """Copy them from one folder to another, where there are any. Raises OSError."""
    if not (source / _POOLING).is_dir():
        return
    shutil.copytree(source / _POOLING, into / _POOLING)
    for name in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        shutil.copyfile(source / name, into / name)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
