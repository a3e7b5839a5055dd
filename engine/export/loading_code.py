"""How an exported model is loaded, in Python, for the card beside it. No torch."""

from __future__ import annotations

from typing import Literal

from engine.methods.heads import CLASSES_NAME

Use = Literal["writes", "classification", "embedding"]

LOADING: dict[tuple[Use, str], str] = {
    ("writes", "adapter"): """\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("path/to/{base}")
model = PeftModel.from_pretrained(base, "path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")""",
    ("writes", "merged"): """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")""",
    ("classification", "adapter"): f"""\
import json
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

classes = json.load(open("path/to/this/folder/{CLASSES_NAME}"))
base = AutoModelForSequenceClassification.from_pretrained(
    "path/to/{{base}}", id2label=dict(enumerate(classes["labels"])), pad_token_id=classes["padding_id"]
)
model = PeftModel.from_pretrained(base, "path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")""",
    ("classification", "merged"): """\
from transformers import pipeline

classify = pipeline("text-classification", "path/to/this/folder", top_k=None)""",
    ("embedding", "adapter"): """\
from sentence_transformers import SentenceTransformer

# adapter_config.json says where the base is: set its base_model_name_or_path to path/to/{base}
model = SentenceTransformer("path/to/this/folder")
vectors = model.encode(["a text", "another text"])""",
    ("embedding", "merged"): """\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/folder")
vectors = model.encode(["a text", "another text"])""",
}
