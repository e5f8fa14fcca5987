"""The command line, as a user calls it."""

import io
import json
import logging
import pathlib
import re
import sys
import warnings

import jax
import numpy as np
import pytest

from bert_jax import config
from bert_jax.analysis import describe, step_time
from bert_jax.checkpoints import reading
from bert_jax.cli import flags, main as main_lib
from bert_jax.cli.main import main, program
from bert_jax.config import UserError
from bert_jax.data.pretraining import corpus_builder
from bert_jax.data.sources import TextData
from bert_jax.experiment import Experiment, compose
from bert_jax.interop import importer
from bert_jax.reporting import markdown
from bert_jax.runs import record, train
from bert_jax.studies import quickstart

SMALL = ["model.hidden_size=16", "model.num_hidden_layers=1",
         "model.num_attention_heads=2", "model.intermediate_size=32",
         "data.tokenizer=wordpiece", "data.tokenizer.vocab_size=60",
         "data.held_out_percent=20", "steps=2", "batch_size=8"]


@pytest.fixture
def text(tmp_path, monkeypatch):
  monkeypatch.setenv("BERT_JAX_CACHE", str(tmp_path / "cache"))
  path = tmp_path / "text.txt"
  path.write_text("\n\n".join(
      f"red green blue {i}.\ntall short old new {i}." for i in range(60)))
  return path


def test_commands_lead_from_text_to_vectors(text, tmp_path, capsys):
  workdir = str(tmp_path / "run")
  assert main(["corpus", "build", "quickstart", f"data.text={text}",
               *SMALL]) == 0
  assert "held out" in capsys.readouterr().out
  run = ["pretrain", "quickstart", f"data.text={text}", *SMALL]
  assert main([*run, "data.held_out_percent=0", "--workdir", workdir]) == 0
  output, said = capsys.readouterr()
  assert output.count("differs from quickstart:\n  ") == 1
  assert "\n  steps=2 (was " in output
  assert "60 documents" in said and "0 documents held out, 60 to train" in said
  assert "held out" not in output
  assert main([*run, "data.held_out_percent=100", f"init_from={workdir}",
               "--workdir", str(tmp_path / "other")]) == 1
  assert "No text is left to train on" in capsys.readouterr().err
  assert main(["evaluate", workdir]) == 1
  assert "No text is held out" in capsys.readouterr().err
  assert main(["predict", workdir, str(text), "--output", "x.tsv"]) == 1
  assert f"NEW init_from={workdir}\n" in capsys.readouterr().err
  (tmp_path / "dev.txt").write_text("red green.\n\nblue.")
  for option, described in (
      ("held_out_percent=100", "60 documents held out, 0 to train on"),
      (f"evaluation_text={tmp_path}/dev.txt", "for evaluation 2 documents")):
    corpus_builder.say.cache_clear()  # A process says it once.
    assert main(["evaluate", workdir, f"data.{option}"]) == 0
    output, said = capsys.readouterr()
    assert "mlm_loss" in output and described in said
  assert main(["embed", workdir, "red green", "--pooling", "tokens"]) == 0
  line = json.loads(capsys.readouterr().out)
  assert line["text"] == "red green" and np.shape(line["vector"])[1] == 16
  output = str(tmp_path / "vectors.npz")
  assert main(["embed", workdir, "red", "old", "--output", output]) == 0
  assert np.load(output)["vectors"].shape == (2, 16)


@pytest.mark.parametrize("tokenizer, name", [
    ("wordpiece", "vocab.txt"), ("sentencepiece", "spm.model")])
def test_trained_tokenizer_can_be_loaded(text, tmp_path, tokenizer, name):
  from bert_jax.data.tokenizers import choices
  path = tmp_path / name
  assert main(["tokenizer", "train", "quickstart", f"data.text={text}",
               f"data.tokenizer={tokenizer}", "data.tokenizer.vocab_size=60",
               "--output", str(path)]) == 0
  member = choices.Tokenizer.members()[tokenizer]
  loaded = member(path=str(path)).build([])
  assert loaded.decode(loaded.encode(["red green"])[0]) == "red green"


@pytest.fixture
def step_of_a_second(monkeypatch):
  """Every step takes a second, and nothing is measured."""
  monkeypatch.setattr(step_time, "estimate", lambda experiment: (
      step_time.StepTime(1.0, "", True)))


def test_show_prints_size_and_differences(capsys, step_of_a_second):
  assert main(["show", "base", "objective.masking=whole_word"]) == 0
  out = capsys.readouterr().out
  assert "\n  objective.masking=whole_word (was token)\n" in out
  # BERT-base with its heads, as published: 110M.
  assert "110,106,428" in out
  assert "1,000,000 steps take at least 11.6 days" in out


def test_show_plans_for_absent_devices(capsys, step_of_a_second):
  assert main(["show", "tiny", "--devices", "6", "--memory", "16",
               "batch_size=768"]) == 0
  out = capsys.readouterr().out
  layouts = [line for line in out.splitlines() if re.match(r"\d+ x ", line)]
  assert "6 x 1 x 1" in layouts[0]
  assert [line for line in layouts if "3 x 1 x 2" in line]
  assert "layouts 6 fit in the 16 GB of a device" in " ".join(out.split())
  # The program's own texts; those of a page are as they are.
  assert max(map(len, out.splitlines())) <= 80


def test_layouts_that_do_not_fit_or_are_not_shown_are_counted():
  shown = " ".join(describe.layouts(
      config.override(Experiment(), ["batch_size=768", "microbatches=1"]), 64,
      10**6).split())
  assert "the first is chosen, and the " in shown and "None fits in" in shown


@pytest.mark.parametrize("words, code, printed", [
    ([], 0, "first steps:"), (["corpus"], 0, "bert-jax corpus [-h]"),
    (["help"], 0, "first steps:"), (["help", "corpus", "build"], 0, "page"),
    (["--version"], 0, "bert-jax "),
    (["pretrian"], 2, "'pretrian'; did you mean 'pretrain'?\n"),
    (["resume", "RUN"], 2, "has that.\n  bert-jax pretrain a"),
    (["pretrain"], 2, "are required: page, --workdir\n"),
    (["pretrain", "tiny", "--wrokdir", "a"], 2, "; did you mean --workdir?"),
    (["pretrain", "tiny", "--workdir", "a", "--steps=9"], 2,
     "no flag --steps.\nAn option of a run has no dashes: steps=...\n"),
    (["corpus", "build", "tiny", "--lr", "9"], 2,
     "no dashes: schedule.learning_rate=...\n")])
def test_help_and_wrong_commands_are_answered(words, code, printed, capsys,
                                              tmp_path):
  record.write(tmp_path, record.Record(command="bert-jax pretrain a"))
  try:
    assert main([str(tmp_path) if w == "RUN" else w for w in words]) == code
  except SystemExit as exit_:
    assert exit_.code == code
  assert printed in "".join(capsys.readouterr())


def test_sentences_are_wrapped_on_a_terminal(monkeypatch, capsys):
  """Of errors, of warnings, and of what was read."""
  text = "some words of a sentence " * 8
  warning = main_lib._Wrapped().format(logging.makeLogRecord({"msg": text}))
  assert warning == text
  monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
  assert main(["show", "base", "x" * 30 + "=1", "y"]) == 1
  corpus_builder.say("a.txt", text)
  warning = main_lib._Wrapped().format(logging.makeLogRecord({"msg": text}))
  lines = [*capsys.readouterr().err.splitlines(), *warning.splitlines()]
  assert max(map(len, lines)) <= 80 and sum("sentence" in x for x in lines) > 4


@pytest.mark.parametrize("arguments, words", [
    (["show", "base", "--devices", "8", "layout.data=3"], "4 x 1 x 2"),
    (["show", "bse"], "did you mean 'base'"),
    (["show", "base", "model.hiden_size=3"], "did you mean 'hidden_size'"),
    (["show", "base", "model.hidden_size=100"], "num_attention_heads=12"),
    (["finetune", "base", "--workdir", "w"], "bert-jax pretrain"),
    *((words, "gs://b/x is an address. Only paths are read") for words in (
        ["pretrain", "tiny", "--workdir", "gs://b/x"],
        ["sweep", "task", "--workdir", "gs://b/x"],
        ["glue", "--workdir", "gs://b/x"],
        ["quickstart", "--workdir", "gs://b/x"],
        ["import", "gs://b/x", "--workdir", "w"],
        ["export", "w", "gs://b/x"],
        ["evaluate", "gs://b/x"],
        ["predict", "w", "x.tsv", "--output", "gs://b/x"],
        ["embed", "gs://b/x", "text"],
        ["tokenizer", "train", "tiny", "--output", "gs://b/x"],
        ["pretrain", "tiny", "--workdir", "w", "data.text=a.txt,gs://b/x"],
        ["finetune", "task", "--workdir", "w", "init_from=gs://b/x"])),
    *(([*words, "nowhere"], "here is no folder nowhere") for words in (
        ["evaluate"], ["runs"])),
    (["evaluate", "."], "holds no checkpoints"),
    (["finetune", "task", "--workdir", "w", "init_from=nowhere"], "nowhere"),
    (["pretrain", "tiny", "--workdir", "w", "data.text=missing-*.txt"],
     "missing-*.txt")])
def test_mistakes_are_explained(arguments, words, capsys, tmp_path,
                                monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert main(arguments) == 1
  assert words in capsys.readouterr().err
  assert "address" not in words or not list(tmp_path.iterdir())


def test_address_is_no_work_directory_in_python(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for given in ("s3://b/x", pathlib.Path("gs://b/x")):
    for use in (lambda: train.train(Experiment(), given),
                lambda: importer.save(None, given),
                lambda: reading.read_checkpoint(given),
                lambda: compose(Experiment(data=TextData(text=str(given))))):
      with pytest.raises(UserError, match="b/x is an address"):
        use()
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error, message", [
    (AssertionError(), "is not here; without it"),
    (RuntimeError("Unable to initialize\nmore"), "here: Unable to initialize")])
def test_missing_devices_are_one_line(monkeypatch, capsys, error, message):

  def no_devices():
    raise error

  monkeypatch.setattr(jax, "devices", no_devices)
  monkeypatch.setattr(jax, "process_count", no_devices)
  monkeypatch.setattr(type(jax.config), "jax_platforms", "cuda",
                      raising=False)
  monkeypatch.setattr(quickstart, "run", lambda *_: jax.devices())
  assert main(["quickstart"]) == 1
  printed = capsys.readouterr().err
  assert "JAX_PLATFORMS=cuda is not here" in printed and message in printed
  assert printed.count("\n") == 1


def test_names_that_are_not_utf8_are_printed(monkeypatch):
  out = io.TextIOWrapper(io.BytesIO(), "utf-8", "strict")
  monkeypatch.setattr(sys, "stdout", out)
  monkeypatch.setattr(logging.root, "handlers", [])
  monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
  monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
  monkeypatch.setattr("bert_jax.cli.main.main", lambda: print("caf\udce9"))
  with pytest.raises(SystemExit):
    program()
  out.flush()
  assert out.buffer.getvalue() == b"caf\\udce9\n"


def test_warnings_are_plain_sentences(monkeypatch, capsys):
  def warn():
    logging.getLogger("bert_jax.data").warning("A sentence.")
    for text, module in (("Another.", describe), ("Of jax.", jax)):
      sys.stderr.write(warnings.formatwarning(
          text, UserWarning, module.__file__, 1))

  monkeypatch.setattr(logging.root, "handlers", [])
  monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
  logging.basicConfig()  # As absl does when it is imported.
  monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
  monkeypatch.setattr("bert_jax.cli.main.main", warn)
  with pytest.raises(SystemExit):
    program()
  own, theirs = capsys.readouterr().err.split(f"{jax.__file__}:1")
  assert own == "A sentence.\nAnother.\n" and "Of jax." in theirs


def test_tables_are_laid_out_in_the_width_of_a_terminal(monkeypatch, capsys):
  text = markdown.table(["run"] + ["a column"] * 9, [["a"] + ["value"] * 9])
  flags.say_markdown(text)
  assert capsys.readouterr().out == f"{text}\n"
  monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
  flags.say_markdown(text)
  lines = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).splitlines()
  assert max(map(len, lines)) <= 80 and sum("value" in x for x in lines) == 1
