"""Questions about contexts: from files to windows, to answers and scores."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from hypothesis import given, strategies as st

from bert_jax.cli.main import main
from bert_jax.config import UserError
from bert_jax.data.batches import loader
from bert_jax.data.labeled import base as sets, windows
from bert_jax.data.labeled.record_files import read_questions
from bert_jax.data.labeled.spans import (
    Answer, SpanPrediction, SpanSet, best_spans)
from bert_jax.data.labeled.windows import SpanOptions
from bert_jax.data.records import squad
from bert_jax.data.records.squad import Question
from bert_jax.metrics import squad as squad_scores
from bert_jax.objectives.span import Span
from tests.memory_corpus import SPECIAL, vocabulary


class Words:
  """A tokenizer of words and punctuation marks."""

  vocabulary = vocabulary(3000)
  fingerprint = "words"

  def encode(self, texts):
    return [ids.tolist() for ids, _, _ in self.encode_offsets(texts)]

  def encode_offsets(self, texts):
    encoded = []
    for text in texts:
      matches = list(re.finditer(r"\w+|[^\w\s]", text))
      ids = [SPECIAL + sum(map(ord, m[0])) % 2900 for m in matches]
      starts, ends = ([m.span()[i] for m in matches] for i in (0, 1))
      encoded.append(tuple(np.array(a, np.int32) for a in (ids, starts, ends)))
    return encoded


def made(count: int, seed: int = 0, longest: int = 60) -> list[Question]:
  """Questions about random words, every fourth without an answer."""
  rng = np.random.default_rng(seed)
  text = lambda n: "".join(
      "".join(rng.choice(list("abcde"), rng.integers(1, 6))) + rng.choice(
          [" ", "-"]) for _ in range(n))
  questions = []
  for i in range(count):
    context = text(rng.integers(1, longest))
    if i % 3 == 2:
      context = questions[-1].context
    places = [m.span() for m in re.finditer(r"\w+", context)]
    first = rng.integers(len(places))
    start, end = places[first][0], places[min(first + 2, len(places) - 1)][1]
    right = (context[start:end],) if i % 4 else ()
    questions.append(Question(f"made:{i}", f"article {i // 6}", str(i),
                              text(rng.integers(1, 9)), context, right,
                              *((start, end) if right else (0, 0))))
  return questions


def file(folder, articles, name="dev.json") -> str:
  """A file of {title: [(context, [question, ...]), ...]}."""
  (folder / name).write_text(json.dumps({"version": "v2.0", "data": [
      {"title": title, "paragraphs": [{"context": context, "qas": qas}
                                      for context, qas in paragraphs]}
      for title, paragraphs in articles.items()]}))
  return str(folder / name)


def ask(id, *places, **more):
  return {"id": id, "question": f"what {id}?", **more, "answers": [
      {"text": text, "answer_start": start} for text, start in places]}


def test_files_are_read(tmp_path):
  path = file(tmp_path, {"Red": [("a red fox ran", [
      ask("1", ("red", 2), ("red fox", 2)),
      ask("2", is_impossible=True, plausible_answers=[
          {"text": "a", "answer_start": 77}])])],
                         "Blue": [("it is  blue", [ask("3", ("is blue", 3)),
                                                    ask("4", ("is", 2))])]})
  one, two, three, four = read_questions(path)
  assert (one.id, one.article, one.text) == ("1", "Red", "what 1?")
  assert one.answers == ("red", "red fox") and (one.start, one.end) == (2, 5)
  assert two.answers == () and two.context == "a red fox ran"
  # Only white space differs.
  assert three.context[three.start:three.end] == "is  blue"
  assert three.answers == ("is blue",) and (four.start, four.end) == (3, 5)
  assert three.place == f"{path}: article 2 'Blue', paragraph 1, question 3"


def test_flat_records_are_read_too(tmp_path, monkeypatch):
  record = dict(id="1", title="T", context="a red fox", question="q?",
                answers=dict(text=["red"], answer_start=[2]))
  none = record | dict(id="2", answers=dict(text=[], answer_start=[]))
  (tmp_path / "a.jsonl").write_text(f"{json.dumps(record)}\n"
                                    f"{json.dumps(none)}\n")
  from_lines = read_questions(str(tmp_path / "a.jsonl"))
  coded = lambda record: {
      key: value.encode() if isinstance(value, str) else dict(
          text=[t.encode() for t in value["text"]],
          answer_start=np.array(value["answer_start"], np.int32))
      for key, value in record.items()}
  asked = []
  monkeypatch.setattr(squad, "tfds_records", lambda *name: asked.append(
      name) or [coded(record), coded(none)])
  from_tfds = read_questions("tfds:squad/v2.0:validation")
  assert asked == [("squad/v2.0", "validation")]
  for questions in from_lines, from_tfds:
    assert [q.answers for q in questions] == [("red",), ()]
    first = questions[0]
    assert (first.start, first.end, first.article) == (2, 5, "T")


def test_ids_may_be_numbers(tmp_path):
  question = ask("x", ("red", 2)) | {"id": 7}
  path = file(tmp_path, {"Red": [("a red fox", [question])]})
  assert [q.id for q in read_questions(path)] == ["7"]


def test_bad_questions_are_reported_or_skipped(tmp_path, caplog):
  context = "a red fox ran"
  path = file(tmp_path, {"Red": [(context, [
      ask("good", ("red", 2)), ask("off", ("red", 3)), ask("case", ("Red", 2)),
      ask("good", ("red", 2)), ask("none", is_impossible=False),
      ask("both", ("red", 2), is_impossible=True), ask("far", ("fox", -7)),
      {"id": "bare", "question": "q?"}, ask("", ("red", 2)),
      ask("spaces", (" ", 1))]), (" ", [ask("empty", ("red", 2))])]})
  with pytest.raises(UserError) as error:
    read_questions(path)
  for words in (
      "10 of 11 records", "4 answer elsewhere", "1 repeated id",
      f"{path}: article 1 'Red', paragraph 1, question off: the answer 'red' "
      "is not at 3, where 'ed ' is; it is at 2", "data.bad_records=skip"):
    assert words in str(error.value)
  assert [q.id for q in read_questions(path, "skip")] == ["good"]
  assert "They are skipped" in caplog.text
  # Without labels, answers are not checked.
  unlabeled = read_questions(path, "skip", labeled=False)
  assert [q.id for q in unlabeled] == [
      "good", "off", "case", "none", "both", "far", "bare", "spaces", "empty"]
  assert not any(q.answers for q in unlabeled)


@pytest.mark.parametrize("name, text, words", [
    ("a.json", "[]", "no list 'data'"), ("a.json", "{", "no JSON"),
    ("a.json", '{"data": [{"paragraphs": 1}]}', "article 1.*'paragraphs'"),
    ("a.json", '{"data": []}', "no question"),
    ("a.tsv", "a\tb", "not '.tsv'")])
def test_other_files_are_refused(tmp_path, name, text, words):
  (tmp_path / name).write_text(text)
  with pytest.raises(UserError, match=words):
    read_questions(str(tmp_path / name))


def test_half_a_surrogate_pair_is_replaced_and_counted(tmp_path, caplog):
  path = tmp_path / "a.json"
  question = {"id": "1", "question": "Which \udc00?",
              "answers": [{"text": "b", "answer_start": 2}]}
  path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": [
      {"context": "\ud83d b", "qas": [question]}]}]}))
  read, = read_questions(str(path))
  assert (read.text, read.context) == ("Which \ufffd?", "\ufffd b")
  assert "questions: 1, the first:" in caplog.text


def test_splits_go_by_article():
  spans = SpanSet.of(made(120), SpanOptions())
  train, held_out = sets.split(spans, 30)
  assert len(train) + len(held_out) == 120 and len(held_out)
  assert not {q.article for q in train.questions} & {
      q.article for q in held_out.questions}
  assert held_out.labels == [q.answers for q in held_out.questions]


@given(st.integers(0, 120), st.integers(1, 60), st.integers(1, 70))
def test_windows_are_those_of_run_squad(count, room, stride):
  spans, start = [], 0
  while start < count:
    length = min(room, count - start)
    spans.append((start, length))
    if start + length == count:
      break
    start += min(length, stride)
  begins, lengths, own_begin, own_end = windows.cut(count, room, stride)
  assert list(zip(begins, lengths)) == (spans or [(0, 0)])
  for token in range(count):
    context = [min(token - b, b + n - 1 - token) + 0.01 * n
               if b <= token < b + n else -1.0 for b, n in spans]
    owns = [i for i in range(len(begins))
            if begins[i] + own_begin[i] <= token < begins[i] + own_end[i]]
    assert owns == [context.index(max(context))]


class Roberta(Words):
  """With two separators between question and context."""

  vocabulary = dataclasses.replace(Words.vocabulary, pair_separators=2,
                                   pair_token_type=0)


def seen(spans, length, examples_per_row, tokenizer=Words()):
  """Batches, with logits that depend only on a window's content."""
  rows = spans.rows(tokenizer, length, examples_per_row, 0, shuffle=False)
  for batch in loader.evaluation_batches(rows, 4):
    key = (batch["input_ids"] * 31 + batch["position_ids"] * 7) % 101
    yield batch, np.stack([key, key * 37 % 89], -1).astype(np.float32) / 9


@pytest.mark.parametrize("examples_per_row, tokenizer", [
    (1, Words()), (4, Words()), (4, Roberta())], ids=["1", "4", "RoBERTa's"])
def test_every_answer_is_predicted_where_it_is(examples_per_row, tokenizer):
  questions = made(60)
  spans = SpanSet.of(questions, SpanOptions(doc_stride=6, null_threshold=0.0))
  predicted, held = [], set()
  for batch, logits in seen(spans, 40, examples_per_row, tokenizer):
    logits[:] = 0
    for b, e in zip(*np.nonzero(batch["example_mask"])):
      places = [batch[f"{end}_positions"][b, e] for end in ("start", "end")]
      for i, place in enumerate(places):
        assert batch["example_ids"][b, place] == e + 1
        logits[b, place, i] = 9
      if places[0] > batch["cls_positions"][b, e]:
        assert batch["answer_ends"][b, places[1]] >= 0
        held.add(int(batch["question_index"][b, e]))
    predicted.append((batch, logits))
  assert held == {i for i, q in enumerate(questions) if q.answers}
  predictions = spans.collect(predicted)
  assert [spans.answer(p) for p in predictions] == [
      "".join(q.answers) for q in questions]
  assert spans.scores(predictions)["exact"] == 1.0
  for question, prediction in zip(questions, predictions):
    for answer in prediction.best:
      assert question.context[answer.start:answer.end] == answer.text


def test_packing_changes_no_answer():
  spans = SpanSet.of(made(50), SpanOptions(doc_stride=9, n_best=5))
  alone, packed = (spans.collect(list(seen(spans, 48, n))) for n in (1, 3))
  assert alone == packed
  assert len(spans.rows(Words(), 48, 3, 0)) < len(
      spans.rows(Words(), 48, 1, 0))
  none = [f for f in alone if not f.best]
  assert not none and all(len({a.text for a in f.best}) == len(f.best)
                          for f in alone)


def test_best_spans_have_the_highest_scores():
  rng = np.random.default_rng(1)
  logits = rng.normal(size=(30, 2)).astype(np.float32)
  starts = np.arange(30, dtype=np.int32) * 3
  ends = starts + 2
  starts[:9] = starts[25:] = -1
  ends[:5] = -1
  every = sorted((-(float(logits[i, 0]) + float(logits[j, 1])), i, j)
                 for i in range(9, 25) for j in range(i, min(i + 4, 30)))
  spans = sorted(best_spans(logits, starts, ends, 4, 7),
                 key=lambda s: -s[2] - s[3])
  assert [s[:2] for s in spans] == [(starts[i], ends[j])
                                    for _, i, j in every[:7]]
  assert len(best_spans(logits, starts, ends, 4, 999)) == len(every)
  assert best_spans(logits, np.full(30, -1), ends, 4, 7) == []


def test_null_threshold_decides_when_no_answer_is_given(tmp_path):
  question = Question("x", "x", "7", "q?", "red fox", ("red",), 0, 3)
  prediction = SpanPrediction(
      (Answer("red", 0, 3, 2.0, 1.0), Answer("fox", 4, 7, 1.0, 1.0)),
      Answer("", 0, 0, 3.0, 0.5))
  always = SpanSet.of([question], SpanOptions())
  never, rather, at = (SpanSet.of([question], SpanOptions(null_threshold=t))
                       for t in (0.0, 0.6, 0.5))
  assert prediction.null_odds == 0.5
  assert [s.answer(prediction) for s in (always, never, rather, at)] == [
      "red", "", "red", "red"]
  assert [a["text"] for a in always.n_best(prediction)] == ["red", "fox"]
  assert [a["text"] for a in never.n_best(prediction)] == ["", "red", "fox"]
  weights = np.exp([3.5, 3.0, 2.0])
  np.testing.assert_allclose(
      [a["probability"] for a in never.n_best(prediction)],
      weights / weights.sum())
  assert never.predictions([prediction])[0][0] == ""
  path = tmp_path / "predictions.json"
  never.write(str(path), [prediction])
  always.write(str(tmp_path / "other.json"), [prediction])
  assert json.loads(path.read_text()) == {"7": ""}
  assert json.loads((tmp_path / "nbest_predictions.json").read_text()
                    )["7"][1]["start_logit"] == 2.0
  assert json.loads((tmp_path / "null_odds_predictions.json").read_text()
                    ) == {"7": 0.5}
  assert not (tmp_path / "null_odds_other.json").exists()


# Scored by evaluate-v1.1.py and evaluate-v2.0.py: the right answers, a
# predicted answer, the odds of none.
CASES = [
    (["the Panthers"], "Panthers", -3.0),
    (["Denver Broncos", "The Denver Broncos"], "Denver", -1.5),
    (["308"], "308 points", -4.0), (["U.S."], "us", 0.5),
    (["O'Brien"], "O Brien", 2.0), (["naïve café"], "Naïve  Café!", -2.5),
    (["e\u0301t\u00e9"], "été", 1.0), (["a"], "the", -1.0),
    (["“quoted” text"], "quoted text", -0.5), (["東京 都"], "東京", 3.5),
    (["theory of an atom"], "The theory of atom", -2.0),
    (["one two two three"], "two two two", 0.0), (["answer"], "", 4.0),
    (["in 1,000—2,000", "about 1000"], "1000", -3.5),
    (["Straße"], "STRASSE", 1.5), (["the", "cat"], "an", 0.75)]
NO_ANSWER = [([], "", 5.0), ([], "something", -0.75), ([], "the", 0.25),
             ([], "wrong", 2.5), ([], "", -5.0)]


def test_scores_are_the_official_ones():
  right, predictions, _ = zip(*CASES)
  assert squad_scores.scores(right, predictions) == pytest.approx(
      {"exact": 0.375, "f1": 0.48363095238095238})
  right, predictions, odds = zip(*CASES, *NO_ANSWER)
  assert squad_scores.scores(right, predictions) == pytest.approx({
      "exact": 0.38095238095238095, "f1": 0.55895691609977318,
      "HasAns_exact": 0.3125, "HasAns_f1": 0.54613095238095234,
      "NoAns_exact": 0.60, "NoAns_f1": 0.60})
  assert squad_scores.best_thresholds(
      right, predictions, odds) == pytest.approx({
          "best_exact": 0.42857142857142855, "best_exact_thresh": -1.0,
          "best_f1": 0.52721088435374153, "best_f1_thresh": 0.0})


def test_loss_is_that_of_each_window():
  spans = SpanSet.of(made(24, longest=7), SpanOptions(doc_stride=6))
  batch, logits = max(seen(spans, 40, 3),
                      key=lambda batch: batch[0]["example_mask"].sum())
  total, count = 0.0, 0
  for b, e in zip(*np.nonzero(batch["example_mask"])):
    here = batch["example_ids"][b] == e + 1
    for i, end in enumerate(("start", "end")):
      of_window = logits[b, :, i].astype(np.float64)
      total += (np.log(np.exp(of_window[here]).sum())
                - of_window[batch[f"{end}_positions"][b, e]]) / 2
    count += 1
  # Some windows share a row, some slots are empty.
  assert len(logits) < count < batch["example_mask"].size
  objective = Span()
  losses = lambda classifier: objective.losses(
      {"classifier": classifier}, batch)["span"]
  value, gradient_BLF = jax.jit(jax.value_and_grad(losses))(logits)
  assert value == pytest.approx(total, rel=1e-5)
  assert objective.weights(batch)["span"] == count
  # Two softmaxes a window, whose gradients each sum to zero.
  assert np.isfinite(gradient_BLF).all()
  assert (np.asarray(gradient_BLF)[batch["example_ids"] == 0] == 0).all()
  np.testing.assert_allclose(gradient_BLF.sum(), 0, atol=1e-5)


def test_bad_span_options_are_refused():
  spans = SpanSet.of(made(3), SpanOptions())
  with pytest.raises(UserError, match="Rows of 6 tokens hold no context"):
    spans.rows(Words(), 6, 1, 0)
  with pytest.raises(UserError, match="data.doc_stride=0: at least 1"):
    dataclasses.replace(SpanOptions(), doc_stride=0)


def test_xquad_is_read_as_it_ships(shared):
  questions = read_questions(str(shared / "data" / "squad" / "xquad.en.json"))
  assert len(questions) == 1190 and len({q.article for q in questions}) == 48
  assert all(q.context[q.start:q.end] == q.answers[0] for q in questions)


def test_commands_learn_and_predict_answers(tmp_path, capsys):
  """The commands on a task that can be learned: the color in the context."""
  rng = np.random.default_rng(0)
  words, colors = "tall short old new warm cold".split(), ["red", "blue"]
  articles = {}
  for i in range(24):
    before, after = (" ".join(rng.choice(words, rng.integers(1, 9)))
                     for _ in range(2))
    answer = rng.choice(colors)
    context = f"{before} is {answer} {after}"
    articles[f"T{i}"] = [(context, [
        ask(str(i), (str(answer), len(before) + 4), is_impossible=False)])]
  path, work = file(tmp_path, articles), str(tmp_path / "run")
  arguments = [
      "finetune", "squad", f"data.train={path}", f"data.evaluation={path}",
      "data.length=32", "data.examples_per_row=2", "data.null_threshold=0",
      "data.tokenizer=wordpiece", "data.tokenizer.vocab_size=60",
      "model.hidden_size=16", "model.num_hidden_layers=1",
      "model.num_attention_heads=2", "model.intermediate_size=32",
      "schedule.learning_rate=2e-2", "epochs=none", "steps=60", "batch_size=8",
      "log_every=10", "--workdir", work]
  assert main(arguments) == 0
  out = capsys.readouterr().out
  assert float(re.search(r"\| f1 +\| +([\d.]+)", out)[1]) > 0.9
  output = tmp_path / "predictions.json"
  assert main(["predict", work, path, "--output", str(output)]) == 0
  predictions = json.loads(output.read_text())
  right = {q.id: q.answers[0] for q in read_questions(path)}
  assert list(predictions) == list(right)
  assert sum(predictions[i] == right[i] for i in right) > 20
