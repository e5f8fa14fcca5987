"""What is embedded, and how one vector is made of a text."""

import argparse
import json
import logging
import os
import sys
import warnings

import jax
import numpy as np
import pytest
from hypothesis import given, strategies as st

import bert_jax as bj
from bert_jax.analysis import embed
from bert_jax.cli import flags, main
from bert_jax.config import UserError
from bert_jax.interop import exporter, importer
from bert_jax.objectives.classification import Classification
from bert_jax.objectives.embedding import Contrastive, Similarity
from bert_jax.runs import initialize
from tests.test_interop import directory, vocabulary

MODULES = ("Transformer", ""), ("Pooling", "1_Pooling"), (
    "Normalize", "2_Normalize")


def sentence_model(path, pooling, modules=MODULES, **options):
  """A directory as sentence-transformers leaves it."""
  source = vocabulary(directory(path, "bert/pooler"))
  (source / "modules.json").write_text(json.dumps([
      {"idx": i, "name": str(i), "path": place, "type": f"a.models.{name}"}
      for i, (name, place) in enumerate(modules)]))
  (source / "1_Pooling").mkdir()
  (source / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
  (source / "sentence_bert_config.json").write_text(json.dumps(options))
  return source


@pytest.mark.parametrize("pooling, expected", [
    ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
     "cls"), ({"word_embedding_dimension": 8}, "mean"),
    ({"pooling_mode": "cls"}, "cls"),
    ({"pooling_mode_max_tokens": True}, "pooling by mean_tokens and max_tok"),
    ({"pooling_mode": "lasttoken"}, "pooling by lasttoken; known here are cls"),
])
def test_sentence_transformers_pool_as_they_say(tmp_path, pooling, expected):
  source = sentence_model(tmp_path / "hf", pooling, max_seq_length=7)
  if " " in expected:
    with pytest.raises(UserError, match=expected):
      importer.read(str(source))
    return
  imported = importer.read(str(source))
  assert imported.objective == Similarity(pooling=expected, normalize=True)
  assert imported.length == 7  # of 10 positions
  importer.save(imported, tmp_path / "run")
  exporter.export(tmp_path / "run", tmp_path / "out")
  again = importer.read(str(tmp_path / "out"))
  assert (again.objective, again.length) == (imported.objective, 7)


@pytest.mark.parametrize("modules, options, words", [
    ((*MODULES[:2], ("Dense", "2_Dense")), {}, "Not known: Dense .2_Dense"),
    (MODULES[:1], {}, "modules are Transformer. Read are"),
    ((("LSTM", ""), MODULES[1]), {}, "Not known: LSTM"),
    (MODULES, {"do_lower_case": True}, "lower-cases the text")])
def test_unknown_sentence_modules_are_refused(tmp_path, modules, options,
                                              words):
  source = sentence_model(tmp_path, {}, modules, **options)
  (source / "tokenizer_config.json").write_text('{"do_lower_case": false}')
  with (source / "vocab.txt").open("a") as file:
    file.write("a\nA\n")
  (source / "vocab.txt").write_text((source / "vocab.txt").read_text().replace(
      "w33\nw34\n", ""))
  with pytest.raises(UserError, match=words):
    importer.read(str(source))


@pytest.mark.parametrize("declared, length", [(8, 8), (int(1e30), 10)])
def test_imported_networks_read_what_they_declare(tmp_path, caplog, declared,
                                                  length):
  source = vocabulary(directory(tmp_path / "hf", "bert/class"))
  (source / "tokenizer_config.json").write_text(
      json.dumps({"model_max_length": declared}))
  experiment = importer.save(importer.read(str(source)), tmp_path / "run")
  assert experiment.data.length == length
  source = sentence_model(tmp_path / "st", {})
  (source / "config_sentence_transformers.json").write_text(
      '{"prompts": {"query": "query: "}, "default_prompt_name": "query"}')
  assert importer.read(str(source)).length == 10
  assert "puts 'query: ' before every text" in caplog.text


def test_another_pooling_than_that_of_the_source_is_reported():
  note = initialize.another_pooling
  assert note(Similarity("cls"), Contrastive()).endswith(
      "by cls there, by mean here (objective.pooling).")
  assert not note(Similarity("cls"), Contrastive("cls"))
  assert not note(Similarity("cls"), Classification())


LINES = st.lists(st.text("a\r\x00\x0b\x0c\x1c\x85\u2028\u2029 ", max_size=4)
                 .filter(lambda line: not line.endswith("\r")), min_size=1)


@given(LINES, st.sampled_from(["\n", "\r\n"]))
def test_lines_are_as_many_as_their_ends(lines, end):
  assert flags.lines("".join(line + end for line in lines).encode()) == lines
  if lines[-1]:  # The last one need not end.
    assert flags.lines(end.join(lines).encode()) == lines


def test_texts_are_never_names_of_files(tmp_path, monkeypatch, capsys):
  (tmp_path / "texts.txt").write_text("one\ntwo\n")
  monkeypatch.chdir(tmp_path)
  for command in (["embed", "run", "texts.txt"],
                  ["export", "run", "out", "--limits", "texts.txt"],
                  ["evaluate", "run", "texts.txt"],
                  ["tokenizer", "train", "base", "texts.txt"]):
    with pytest.raises(SystemExit):
      main.main(command)
    assert "texts.txt is a file" in capsys.readouterr().err
  assert flags.text("text") == "text"
  with pytest.raises(argparse.ArgumentTypeError, match="is not UTF-8"):
    flags.text(os.fsdecode(b"gr\xfc\xdfe"))
  with pytest.raises(UserError, match="Line 2 of standard input is not UTF-8"):
    flags.lines(b"one\ngr\xfc\xdfe\n")
  for texts, pairs, words in (
      ("a text", (), "texts: expected a list"), (["a"], "b", "pairs: expected"),
      (["a", np.nan], (), "texts.1. is no text, but nan"),
      (["a", "b"], ["c"], "2 texts and 1 second ones")):
    with pytest.raises(UserError, match=words):
      embed.embed(None, texts, pairs)


def test_output_is_checked_before_it_is_computed(tmp_path, capsys):
  nowhere = str(tmp_path / "absent" / "x.npz")
  for command in (["embed", "nowhere", "a", "--output", nowhere],
                  ["tokenizer", "train", "base", "--output", nowhere]):
    assert main.main(command) == 1
    assert "there is no folder" in capsys.readouterr().err
  assert main.main(["embed", "nowhere", "a\0", "--output",
                    str(tmp_path / "x.npz")]) == 1
  assert "cannot hold a text that ends in NUL" in capsys.readouterr().err


def test_programs_read_arguments_as_utf8_in_any_locale(monkeypatch):
  called = []
  monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "bert_jax", "show"])
  monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
  monkeypatch.setattr(os, "execv", lambda *arguments: called.append(arguments))
  monkeypatch.setattr(main, "main", lambda: 0)
  monkeypatch.setattr(logging.root, "handlers", [])
  monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
  with pytest.raises(SystemExit):
    main.program()
  assert called == [(sys.executable, [sys.executable, "-X", "utf8", "-m",
                                      "bert_jax", "show"])]


@pytest.mark.parametrize("longest, limit, expected", [
    (3, 512, 32), (32, 512, 32), (33, 512, 64), (300, 300, 300), (5, 16, 16)])
def test_rows_are_as_short_as_their_texts(longest, limit, expected):
  assert embed.row_length(longest, limit) == expected


def test_vectors_are_the_same_in_rows_of_any_length(tmp_path, monkeypatch):
  source = sentence_model(tmp_path, {})
  saved, texts = importer.checkpoint(source), ["a b", "b", "c a"]
  vectors = []
  for length in (8, 32):
    monkeypatch.setattr(embed, "SHORTEST_ROW", length)
    vectors.append(np.stack(embed.embed(saved, texts)))
  np.testing.assert_allclose(*vectors, atol=1e-6)


def test_second_call_compiles_nothing(tmp_path, caplog):
  bert = bj.load(str(sentence_model(tmp_path, {})))
  bert.embed(["a b", "b"])
  with jax.log_compiles(), caplog.at_level("WARNING"):
    bert.embed(["c", "a b"])
  assert "ompil" not in caplog.text
