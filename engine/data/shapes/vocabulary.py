"""Names that people give the columns of their data, in lower case with words joined by "_"."""

from __future__ import annotations

import re

SYSTEMS = ("system", "system_prompt", "system_message", "sys")
TOOLS = ("tools", "functions")
MESSAGES = ("messages", "conversations", "conversation", "dialog", "dialogue", "chat", "turns")
CHOSEN = ("chosen", "preferred", "preferred_output", "accepted", "better")
REJECTED = ("rejected", "dispreferred", "non_preferred_output", "refused", "worse")
LIKED = ("label", "liked", "thumbs_up", "thumbs", "thumb", "kto_tag", "feedback", "desirable", "vote", "is_good")
ASKED = ("prompt", "question", "instruction", "query", "input", *MESSAGES)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _scored(*scores_and_words: int | str) -> dict[str, int]:
    """A vocabulary from scores, each followed by the words that have it."""
    pairs = zip(scores_and_words[::2], scores_and_words[1::2], strict=True)
    return {word: int(score) for score, words in pairs for word in str(words).split()}


# Question, more that belongs to it, answer: these go together, whatever other columns there are.
PAIRS: tuple[tuple[str, str | None, str], ...] = (
    ("prompt", None, "completion"),
    ("prompt", None, "response"),
    ("instruction", "input", "output"),
    ("instruction", "context", "response"),
    ("question", "context", "answer"),
    ("query", None, "response"),
    ("input", None, "output"),
    ("q", None, "a"),
)
# How surely a name is that of a question or an answer: 3 means it, 2 may mean it, 1 only beside a surer one.
QUESTION_NAMES = _scored(
    3, "question prompt instruction query frage pregunta pergunta domanda vraag pytanie soru вопрос",
    3, "问题 問題 提问 質問 질문 سؤال प्रश्न",
    2, "ask asked request problem user human task utterance message ticket inquiry",
    1, "input source src document article dialogue text passage",
)  # fmt: skip
ANSWER_NAMES = _scored(
    3, "answer response completion reply output antwort respuesta resposta risposta reponse réponse antwoord cevap",
    3, "odpowiedź ответ 回答 答案 答复 答え 답변 جواب उत्तर",
    2, "assistant bot solution ideal gold expected agent",
    1, "target tgt summary highlight tldr headline",
)  # fmt: skip
# A name with one of these words says something about a text and is none: question_id, answer_score.
ABOUT = _words(
    "id ids idx index uid uuid hash count length len num number tokens score scores rating type url link lang language "
    "date time timestamp category level difficulty is has author"
)
SIMILAR: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        ("anchor", "query", "question", "sentence"),
        ("positive", "pos", "positives", "positive_passage", "positive_passages", "positive_text"),
    ),
    *(((f"{name}1",), (f"{name}2",)) for name in ("sentence", "text", "question", "sentence_", "text_")),
    (("sentence_a",), ("sentence_b",)),
    (("query", "question"), ("passage", "document", "doc", "context", "paragraph", "passage_text")),
)
NEGATIVES = re.compile(r"(hard_)?neg(ative)?s?(_passages?|_text)?(_?\d+)?")
SCORES = ("score", "similarity", "similarity_score", "relatedness_score", "is_duplicate")
LABELLED_TEXTS = (
    *("text", "sentence", "content", "review", "review_text", "comment", "comment_text", "tweet", "body", "message"),
    *("document", "utterance", "headline", "title", "premise", "query", "question", "prompt", "input"),
)
LABELS = (
    *("label_text", "label_name", "label_names", "label", "labels", "class", "class_name", "sentiment", "emotion"),
    *("emotions", "intent"),
)
# Many corpora tell the topic of a text that is to be read, not classified; alone beside the text it is the class.
WEAK_LABELS = ("category", "categories", "topic", "topics", "tag", "tags", "genre", "genres", "target")
TEXTS = (
    *("text", "content", "document", "body", "markdown", "article", "passage", "raw_text", "raw_content"),
    *("page_content", "story", "code"),
)
