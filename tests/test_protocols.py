"""One ruler: what a protocol asks depends on the documents alone."""

import dataclasses
import math
import re

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec as P

from bert_jax.cli.main import main
from bert_jax.config import UserError
from bert_jax.data.pretraining import scored_documents as scored
from bert_jax.data.pretraining.formats import FullSentencesFormat
from bert_jax.data.tokenizers.vocabulary import Vocabulary
from bert_jax.experiment import compose, recipe
from bert_jax.objectives.masking import (
    SpanMasking, TokenMasking, WholeWordMasking)
from bert_jax.objectives.mlm import Mlm
from bert_jax.objectives.network import Network
from bert_jax.parallel.mesh import make_mesh, place
from bert_jax.studies.members.results import Member, MemberResult, save
from bert_jax.studies.protocols import scored_runs, scores
from bert_jax.studies.protocols.base import Protocol
from bert_jax.studies.protocols.item_scores import ItemScorer
from bert_jax.studies.protocols.text import MlmProtocol, NspProtocol
from bert_jax.training import numerics
from tests.memory_corpus import MemoryCorpus
from tests.small_run import pretraining

SIZE, SPECIAL = 60, 6  # one id more than BERT's five is special
VOCABULARY = Vocabulary(
    SIZE, 0, 1, 2, 3, 4, np.ones(SIZE, bool), np.ones(SIZE, np.int32),
    np.arange(SPECIAL, SIZE, dtype=np.int32))


def corpus(documents) -> MemoryCorpus:
  """Of documents, each a list of sentences, each an array of tokens."""
  sentences = [sentence for document in documents for sentence in document]
  return MemoryCorpus(
      np.concatenate(sentences).astype(np.uint16),
      np.cumsum([0, *map(len, sentences)]),
      np.cumsum([0, *map(len, documents)]), types=SIZE)


def documents(count: int = 200, seed: int = 0):
  rng = np.random.default_rng(seed)
  return [[rng.integers(5, SIZE, rng.integers(1, 20))
           for _ in range(rng.integers(1, 9))] for _ in range(count)]


def asked(texts, length: int = 16, part="score"):
  """By the tokens of each document, the places of its masked tokens."""
  text = corpus(texts)
  chosen = scored.scored_documents(text, part)
  pieces = scored.masked_examples(chosen, VOCABULARY, length)
  starts_U1 = text.sentence_starts_S1[text.document_starts_U1]
  masks = {}
  for start, masked in zip(pieces.examples.a_start_X, pieces.masked_X):
    document = np.searchsorted(starts_U1, start, side="right") - 1
    first, end = starts_U1[document:][:2]
    masks.setdefault(tuple(text.tokens_T[first:end]), []).extend(
        start - first + masked)
  return masks


def test_masks_depend_on_the_document_alone():
  # Some have no ordinary token.
  texts = [*documents(), *([np.full(n, 5)] for n in range(1, 6))]
  masks = asked(texts)
  more = [*documents(30, seed=1), *texts[::-1], texts[0]]
  assert asked(more).items() >= masks.items() and masks != asked(more)
  assert asked(texts, length=64) == masks
  assert not masks.keys() & asked(texts, part="tune").keys()
  share = len(masks) / (len(masks) + len(asked(texts, part="tune")))
  assert 0.7 < share < 0.9  # of 200: 80% +- 3
  for tokens, places in masks.items():
    ordinary = np.array(tokens) >= SPECIAL
    assert ordinary[places].all() and len(set(places)) == len(places)
    assert len(places) == max(1, math.floor(0.15 * ordinary.sum() + 0.5))
  with pytest.raises(UserError, match="allowed: 4 or more"):
    asked(texts, length=3)


def test_fingerprint_is_of_the_scored_tokens():
  texts = documents(20)
  def fingerprint(texts, *rest):
    text = corpus(texts)
    return scored.fingerprint(text, scored.masked_examples(
        scored.scored_documents(text, "score"), VOCABULARY, 16), "", *rest)
  same = fingerprint(texts)
  assert fingerprint(texts[::-1]) == same
  assert fingerprint(texts[1:]) != same or fingerprint(texts[2:]) != same
  assert fingerprint(texts, 1) != same
  # Another cut or other masks are another version of mlm and need a new value.
  fixed = [[SPECIAL + np.arange(7 * i, 7 * i + 20) % 54] * 2 for i in range(9)]
  assert fingerprint(fixed) == "9072b1b9f85794496465d9a8c1557e9e"


def test_pairs_balance_first_and_second_texts():
  text = corpus(documents())
  pairs = scored.paired_examples(scored.scored_documents(text, "score"),
                                 VOCABULARY, 23)
  e = pairs.examples
  texts = lambda at_X, lengths_X, random: sorted(
      tuple(text.tokens_T[at:at + length]) for at, length in zip(
          at_X[e.is_random_X == random], lengths_X[e.is_random_X == random]))
  for side in ((e.a_start_X, e.a_length_X), (e.b_start_X, e.b_length_X)):
    assert texts(*side, True) == texts(*side, False)
  document = text.document_of
  same = document(e.a_start_X) == document(e.b_start_X)
  np.testing.assert_array_equal(same, ~e.is_random_X)
  assert (e.b_start_X == e.a_start_X + e.a_length_X)[same].all()
  assert len(pairs.item_X) > 100 and e.lengths_X.max() == 23
  one = corpus([[np.arange(6, 9), np.arange(9, 12)]] * 2)
  assert not len(scored.paired_examples(
      scored.scored_documents(one, "score"), VOCABULARY, 24).item_X)


@pytest.fixture(scope="module")
def run(folder):
  experiment = pretraining(folder)
  return compose(dataclasses.replace(experiment, model=dataclasses.replace(
      experiment.model, max_position_embeddings=512)))


@pytest.fixture(scope="module")
def params(run):
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda x: rng.normal(0, 0.7, x.shape).astype(np.float32),
                      run.shape().params)


def reference(run, params, protocol):
  """Of each document, piece by piece in float64: nats, masked tokens, those
  that are guessed right, and their bytes."""
  rows = protocol.rows(run)
  corpus, pieces = run.prepared.corpus.held_out, rows.pieces
  apply = numerics.jit(run.recipe.network.apply)
  sums = np.zeros((4, rows.items))
  for start, length, masked, item in zip(
      pieces.examples.a_start_X, pieces.examples.a_length_X, pieces.masked_X,
      pieces.item_X):
    tokens = corpus.tokens_T[start:start + length].astype(np.int64)
    seen = tokens.copy()
    seen[masked] = VOCABULARY.mask_id
    batch = {name: np.zeros((1, protocol.length), np.int32) for name in (
        "input_ids", "token_type_ids", "position_ids", "example_ids")}
    batch["input_ids"][0, :length + 2] = [2, *seen, 3]
    batch["example_ids"][0, :length + 2] = 1
    batch["position_ids"][0] = np.arange(protocol.length)
    batch["cls_positions"] = np.zeros((1, 1), np.int32)
    batch["masked_positions"] = np.zeros((1, 64), np.int32)
    batch["masked_positions"][0, :len(masked)] = masked + 1
    logits = np.float64(apply(params, batch)["mlm"][0, :len(masked)])
    log_z = np.log(np.exp(logits).sum(-1))
    nats = log_z - logits[np.arange(len(masked)), tokens[masked]]
    sums[:, item] += (
        nats.sum(), len(masked), (logits.argmax(-1) == tokens[masked]).sum(),
        run.recipe.vocabulary.byte_count_V[tokens[masked]].sum())
  return sums


def test_score_is_that_of_each_piece_alone(run, params):
  """Packed, over eight devices and in other batches: the same but rounding."""
  assert MlmProtocol().fit([run.experiment]).title == "mlm@1 length=32"
  protocol = MlmProtocol(length=96)
  totals_I, weights_I, hits_I, bytes_I = reference(run, params, protocol)
  score = protocol.scorer(run)(params)
  # Compiled once for a run and its end.
  assert protocol.scorer(scored_runs.plain(run)) is protocol.scorer(run)
  np.testing.assert_array_equal(score.weights_RI[0], weights_I)
  np.testing.assert_allclose(score.totals_RI[0], totals_I, rtol=1e-5)
  assert score.value == pytest.approx(totals_I.sum() / weights_I.sum(), 1e-6)
  assert score.further == pytest.approx({
      "bits_per_byte": totals_I.sum() / np.log(2) / bytes_I.sum(),
      "accuracy": hits_I.sum() / weights_I.sum()}, 1e-6)
  assert len(weights_I) > 15 and score.value > 4.5  # Of log(60) nats.
  one_device = place(params, NamedSharding(make_mesh(
      devices=jax.devices()[:1]), P()))
  rows = protocol.rows(run, examples_per_row=1)
  assert len(rows) > 1.3 * len(protocol.rows(run)) and rows.items < len(rows)
  single = dataclasses.replace(run, experiment=dataclasses.replace(
      run.experiment, batch_size=1))
  np.testing.assert_allclose(
      ItemScorer(single, rows, protocol.question)(one_device).nats_I,
      score.totals_RI[0], rtol=1e-5)


def test_masks_are_those_of_no_training(run, params):
  """The same rows for all, and without corruption by the objective."""
  score = MlmProtocol().scorer(run)(params)
  for options in (
      dict(objective=Mlm(SpanMasking(rate=0.3))),
      dict(objective=Mlm(TokenMasking(rate=0.5, mask_fraction=0.0))),
      dict(objective=Mlm(WholeWordMasking()), data=dataclasses.replace(
          run.experiment.data, format=FullSentencesFormat(),
          examples_per_row=4))):
    other = compose(dataclasses.replace(run.experiment, **options))
    assert MlmProtocol().data(other) == score.data
  # With the parameters of the first, as far as it has a use for them.
  own = {name: params[name] for name in ("encoder", "mlm")}
  other_score = MlmProtocol().scorer(other)(own)
  np.testing.assert_allclose(other_score.totals_RI, score.totals_RI, rtol=1e-5)
  assert other_score.data == score.data
  assert MlmProtocol(part="tune").data(run) != score.data
  assert MlmProtocol(length=16).data(run) != score.data
  assert 0 < MlmProtocol(32, percent=50).rows(run).items < 20


def test_nsp_is_half_right_where_all_answers_are_the_same(run):

  def apply(params, batch, keys_B=None):
    """Knows the labels, as far as its kernel says so."""
    head = params["nsp"]
    known_BEC = jax.nn.one_hot(batch["next_sentence_labels"], 2)
    return {"nsp": head["kernel"][0, 0] * known_BEC + head["bias"][None, None]}

  scorer = NspProtocol().scorer(dataclasses.replace(
      run, recipe=dataclasses.replace(run.recipe, network=Network(
          run.recipe.network.init, apply))))
  for knows, bias, right in ((0, 1, 1), (0, -1, 1), (3, 1, 2), (-3, 1, 0)):
    score = scorer({"nsp": {"kernel": np.full((1, 1), knows, np.float32),
                            "bias": np.array([bias, 0], np.float32)}})
    assert set(score.weights_RI.ravel()) == {2.0}
    assert set(score.totals_RI.ravel()) == {right} and score.value == right / 2
    assert score.totals_RI.size > 15 and score.measure == "accuracy"
    assert score.further["nats_a_pair"] == pytest.approx(np.mean(
        np.logaddexp(0, [-bias - knows, bias - knows])))


@dataclasses.dataclass(frozen=True)
class _Causal(Mlm):

  def order(self, batch):
    return batch["position_ids"]


@dataclasses.dataclass(frozen=True)
class _Spans(Mlm):

  def logits(self, encoder, sequence_output_BLD, batch, keys_B):
    return {"mlm": batch["spans"]}


@dataclasses.dataclass(frozen=True)
class _OfRows(Mlm):

  def logits(self, encoder, sequence_output_BLD, batch, keys_B):
    return {"mlm": sequence_output_BLD[:, 0]}


@pytest.mark.parametrize("protocol, options, words", [
    (MlmProtocol(), dict(objective=_OfRows()), "a head 'mlm' of another kind"),
    (MlmProtocol(), dict(objective=_Causal()), "an order of its own"),
    (MlmProtocol(), dict(objective=_Spans()), "reads 'spans' of a batch"),
    (NspProtocol(), dict(objective=Mlm()), "no head 'nsp'"),
    (MlmProtocol(length=513), {}, "max_position_embeddings=512"),
    (MlmProtocol(percent=0.0), {}, "no document is held out")])
def test_reasons_not_to_score_are_given(run, protocol, options, words):
  experiment = dataclasses.replace(run.experiment, **options)
  other = dataclasses.replace(run, experiment=experiment, recipe=recipe(
      experiment, run.recipe.vocabulary))
  score = protocol.scorer(other)({})
  assert words in score.unscorable and math.isnan(score.value)
  assert score.data == protocol.data(other)
  tables = dataclasses.replace(other, prepared=dataclasses.replace(
      run.prepared, corpus=None))
  assert "no held-out documents" in protocol.scorer(tables)({}).unscorable


def test_protocols_are_listed_with_their_options(capsys):
  assert main(["score"]) == 0
  listed = capsys.readouterr().out
  assert "\nmlm@1 length=0 part=score percent=100.0\n    Masked-LM" in listed
  assert "percent of mlm, nsp: percentage of the held-out documents" in listed


def test_command_scores_what_is_new(run, params, tmp_path, capsys, monkeypatch):
  first, second = tmp_path / "a", tmp_path / "b"
  for folder, step in ((first, 3), (second, 4)):
    save(MemberResult(Member(0, 1.0), step, {}, 0.0, params), run, folder)
  command = ["score", str(first), str(second), "--protocol", "mlm",
             "--protocol", "nsp@1 length=24"]
  assert main(command) == 0
  table = capsys.readouterr().out
  score = scores.read(first)["mlm@1 length=32"]
  assert score.value == MlmProtocol().scorer(run)(params).value
  assert table.count(f"{score.value:.4f} |") == 2
  rows = table.splitlines()[2:]
  assert [row.split("|")[3].strip() for row in rows] == [
      "mlm@1 length=32", "nsp@1 length=24"] * 2
  # What a protocol lacks is said before anything is scored.
  assert main([*command, "--protocol", f"rte folder={tmp_path}"]) == 1
  assert f"no train.tsv and dev.tsv in {tmp_path}/RTE" in (
      capsys.readouterr().err)
  # A score of another checkpoint, or of other data, is made again.
  scores.write(first, dataclasses.replace(score, checkpoint="step 2"))
  second_score = scores.read(second)["mlm@1 length=32"]
  scores.write(second, dataclasses.replace(second_score, data="other"))
  scored = []
  monkeypatch.setattr(MlmProtocol, "score", lambda self, run, params, workdir: (
      scored.append(workdir) or dataclasses.replace(score, data="new")))
  assert main(command) == 0 and scored == [first, second]
  assert scores.read(first)[score.protocol].checkpoint == score.checkpoint


@pytest.mark.parametrize("title, words", [
    ("mln@1", "did you mean 'mlm'?"), ("mlm@7", "mlm is of version 1"),
    ("mlm length=x", "expected int"), ("", "no such protocol")])
def test_protocol_mistakes_are_explained(title, words):
  with pytest.raises(UserError, match=re.escape(words)):
    Protocol.parse(title)
