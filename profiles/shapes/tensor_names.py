"""What a tensor is, told from its name: as safetensors files have them and as transformers 5 names modules."""

from __future__ import annotations

import re

# Tables that old checkpoints carry along and that transformers computes instead.
BUFFER = re.compile(
    r"(rotary_emb\.inv_freq|\.masked_bias|(^|\.)h\.\d+\.attn\.bias|\.attention\.(bias|rotary_emb\.\w+))$"
)
HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output)\.weight$")
HEAD_BIAS = re.compile(r"(^|\.)(lm_head|embed_out)\.bias$")
EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in|wpe|embed_positions)\.weight$")
LAYER = re.compile(r"(^|\.)(layers|h|blocks)\.(\d+)\.")
# Routed experts, one by one (".experts.7.up_proj.weight") or as one tensor (".experts.gate_up_proj"); shared ones,
# which every token passes, are called shared_expert or shared_experts.
EXPERT = re.compile(r"\.experts\.")
# What an expert's parts are called, and what peft takes for them wherever it stands.
EXPERT_PARTS = frozenset({"gate", "w1", "w2", "w3", "gate_proj", "up_proj", "down_proj"})
# A mixture's router: transformers holds it as a parameter of its own, not as a linear layer.
ROUTER = re.compile(r"\.(mlp|block_sparse_moe|feed_forward|moe)\.(gate|router|router\.layer)\.weight$")
# Towers for images or sound, and what joins them to the text model.
OTHER_SENSES = re.compile(
    r"(^|\.)(vision_tower|vision_model|vision_encoder|vision_embed_tokens|visual|audio_tower|audio_model|embed_vision"
    r"|embed_audio|multi_modal_projector|mm_projector|connector|image_newline|patch_merger|vision_language_adapter)(\.|$)"
)


def is_linear(name: str, shape: tuple[int, ...]) -> bool:
    """Whether `name` is a linear layer's weight in the text model: not the head's, a router's or a routed expert's."""
    if len(shape) != 2 or not name.endswith(".weight"):
        return False
    return not any(kind.search(name) for kind in (HEAD, EMBEDDING, EXPERT, ROUTER, OTHER_SENSES))
