"""Questions about contexts, as SQuAD 1.1 and 2.0 ship them.

  train-v2.0.json     articles of paragraphs of questions
  train.jsonl         a question a line, with the fields of the TFDS set
  tfds:squad:train    fields title, context, id, question, answers

The answer that training aims at is the first one; all of them are right when
answers are scored. A question with `is_impossible` has none, and its
`plausible_answers` are not looked at.
"""

import dataclasses
import json
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

from bert_jax.config import UserError
from bert_jax.data.records import tables
from bert_jax.data.records.bad_records import Fault, Faults, OnBadRecord
from bert_jax.data.records.surrogates import well_formed
from bert_jax.data.records.tfds import tfds_name, tfds_records

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Question:
  """A question with its context.

  Attributes:
    place: file, article, paragraph and id, for messages.
    article: the title, or without one the context: what splits go by.
    answers: all that are right; none: it has none, or is not labeled.
    start, end: where in the context the first answer stands, in characters.
  """

  place: str
  article: str
  id: str
  text: str
  context: str
  answers: tuple[str, ...] = ()
  start: int = 0
  end: int = 0


def parse(spec: str, ending: str, text: str,
          bad_records: OnBadRecord = "error",
          labeled: bool = True) -> list[Question]:
  """The questions of a set, in its order.

  An answer that differs from the text at its `answer_start` by white space
  alone is taken as it stands there. Otherwise, a question is bad if its
  answer is not where it is said to be, or if id, question or context are
  missing, empty, or (ids) there already.

  Args:
    spec: a file, for messages, or tfds:NAME:SPLIT.
    ending: of the file's name, without that of a compression.
    text: of the file.
    bad_records: whether such questions are an error or left out; either way
      they are counted, and the first are shown with their places.
    labeled: whether answers are read; without them none can be wrong, and
      contexts may be empty.

  Raises:
    UserError: bad questions, another format, or nothing in it.
  """
  faults = Faults(spec, "data.bad_records")
  questions, repaired, ids, with_halves = [], 0, set(), []
  for place, record in _records(spec, ending, text, faults):
    record, halves = well_formed(record)
    if halves:
      with_halves.append(place)
    try:
      question, changed = _question(place, record, labeled)
      if question.id in ids:
        raise Fault("repeated id", lambda: "this id was there before")
    except Fault as fault:
      faults.add(place, fault)
      continue
    ids.add(question.id)
    repaired += changed
    questions.append(question)
  if with_halves:
    _LOG.warning("%s: half of a surrogate pair is no character and is read as "
                 "U+FFFD; questions: %d, the first: %s.", spec,
                 len(with_halves), with_halves[0])
  if repaired:
    _LOG.warning("%s: %d of %d questions have answers that differ in white "
                 "space from the context; they are taken as they stand there.",
                 spec, repaired, len(questions))
  faults.settle(len(questions) + len(faults.unusable), bad_records)
  if not questions:
    raise UserError(f"{spec}: there is no question in it.")
  return questions


def _records(spec: str, ending: str, text: str, faults: Faults
             ) -> Iterator[tuple[str, Mapping[str, Any]]]:
  """(place, flat record) of every question."""
  if spec.startswith("tfds:"):
    name, split = tfds_name(spec)
    if not split:
      raise UserError(f"{spec}: name the split too, as in tfds:squad:train.")
    for i, record in enumerate(tfds_records(name, split)):
      yield f"{spec}:{i}", record
    return
  if ending == ".json":
    yield from _articles(spec, text)
  elif ending in (".jsonl", ".ndjson"):
    table = tables.parse_table(spec, ending, text, header=True)
    faults.unusable.extend(table.faults.unusable)
    for i in range(len(table.records)):
      yield table.place(i), table.fields(i)
  else:
    raise UserError(f"{spec}: questions are read from .json files as SQuAD's, "
                    ".jsonl files (also compressed) or tfds:NAME:SPLIT, not "
                    f"{ending!r}.")


def _articles(spec: str, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
  try:
    file = json.loads(text)
  except json.JSONDecodeError as error:
    raise UserError(f"{spec}: no JSON: {error}.") from None
  for a, article in _members(spec, file, "data"):
    title = article["title"] if "title" in article else ""
    where = f"{spec}: article {a} {title!r}"
    for p, paragraph in _members(where, article, "paragraphs"):
      here = f"{where}, paragraph {p}"
      context = paragraph["context"] if "context" in paragraph else None
      for q, question in _members(here, paragraph, "qas"):
        name = question["id"] if "id" in question else f"number {q}"
        yield f"{here}, question {name}", {
            **question, "title": title, "context": context}


def _members(place: str, parent: Any,
             key: str) -> Iterator[tuple[int, dict[str, Any]]]:
  """The numbered objects of a list in an object, the first being 1."""
  members = parent[key] if isinstance(parent, dict) and key in parent else None
  if not isinstance(members, list) or not all(
      isinstance(member, dict) for member in members):
    raise UserError(f"{place}: no list {key!r} of objects; SQuAD's files are "
                    "data > paragraphs > qas.")
  return enumerate(members, 1)


def _question(place: str, record: Mapping[str, Any],
              labeled: bool) -> tuple[Question, bool]:
  """The question, and whether its answer differs in white space."""
  fields = {name: _text(record[name]) if name in record else None
            for name in ("id", "question", "context")}
  if fields["id"] is None and isinstance(record.get("id"), int):
    fields["id"] = str(record["id"])  # As GermanQuAD and others have them.
  for name, value in fields.items():
    empty = not value or value.isspace()
    if value is None or empty and (labeled or name != "context"):
      what = f"{name} {'missing' if value is None else 'empty'}"
      raise Fault(what, lambda: what)
  title = _text(record["title"]) if "title" in record else None
  question = Question(place, title or fields["context"], fields["id"],
                      fields["question"], fields["context"])
  if not labeled:
    return question, False
  answers = _answers(record)
  impossible = bool(record["is_impossible"]) if (
      "is_impossible" in record) else not answers
  if impossible == bool(answers):
    raise Fault("answers against is_impossible", lambda: (
        f"is_impossible is {impossible}, and there are {len(answers)} answers"))
  if impossible:
    return question, False
  places = [_located(question.context, *answer) for answer in answers]
  return dataclasses.replace(
      question, answers=tuple(text for text, _ in answers),
      start=places[0][0], end=places[0][1]), any(p[2] for p in places)


def _answers(record: Mapping[str, Any]) -> list[tuple[str, int]]:
  """(text, start) of each: a list of objects, or an object of lists."""
  try:
    answers = record["answers"]
    if isinstance(answers, Mapping):
      pairs = zip(answers["text"], answers["answer_start"], strict=True)
    else:
      pairs = [(answer["text"], answer["answer_start"]) for answer in answers]
    return [(_text(text) or "", int(start)) for text, start in pairs]
  except (KeyError, TypeError, ValueError):
    raise Fault("unreadable answers", lambda: (
        "answers lack text and answer_start")) from None


def _located(context: str, text: str, start: int) -> tuple[int, int, bool]:
  """Where the answer's words stand, and whether white space differs."""
  words = r"\s+".join(map(re.escape, text.split()))
  match = words and 0 <= start and re.compile(
      rf"\s*({words})").match(context, start)
  if match:
    return *match.span(1), context[start:start + len(text)] != text
  places = [m.start() for m in re.finditer(re.escape(text), context)]
  hint = (f"; it is at {min(places, key=lambda p: abs(p - start))}"
          if text and places else "")
  raise Fault("answer elsewhere", lambda: (
      f"the answer {text!r} is not at {start}, where "
      f"{context[max(start, 0):][:len(text)]!r} is{hint}"))


def _text(value: Any) -> str | None:
  if isinstance(value, bytes):
    return value.decode("utf-8", errors="replace")
  return value if isinstance(value, str) else None
