"""What a shell is offered at TAB."""

import os
import re
import subprocess
import sys

import pytest

from bert_jax.cli import completion

PRETRAIN = "pretrain quickstart --workdir runs/a"


@pytest.fixture(scope="module")
def known(tmp_path_factory):
  """In a cache of its own, where processes find it."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("BERT_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield completion.write(completion._path())


@pytest.mark.parametrize("line, offered", [
    (f"{PRETRAIN} model.norm_pl", ["model.norm_placement="]),
    # bash splits words at "=", and takes what is behind it.
    (f"{PRETRAIN} model.norm=r", ["rms"]),
    (f"{PRETRAIN} \"model.norm=r", [])])
def test_shell_is_answered_without_jax(known, line, offered):
  line = f"bert-jax {line}"
  answer = subprocess.run(
      ["bash", "-c", '"$@" 8>&1 9>&2 1>/dev/null', "bash", sys.executable,
       "-X", "importtime", "-m", "bert_jax"], capture_output=True, text=True,
      env=os.environ | {
          "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n",
          "_ARGCOMPLETE_SUPPRESS_SPACE": "1", "COMP_LINE": line,
          "COMP_POINT": str(len(line)),
          "_ARGCOMPLETE_COMP_WORDBREAKS": " \t\n\"'><=;|&(:"})
  assert answer.stdout.splitlines() == offered, answer.stderr
  imported = set(re.findall(r"\| +([\w.]+)\n", answer.stderr))
  assert "argcomplete" in imported and not {"jax", "numpy"} & imported


@pytest.mark.parametrize("line, offered, not_offered", [
    ("", "pretrain ablate tokenizer", "--workdir tiny"),
    ("tokenizer ", "train", "build"),
    ("pretrain ", "quickstart ablations/rotary", "model.norm= --workdir"),
    ("pretrain --workdir runs/a quick", "quickstart", "model.norm="),
    ("pretrain quickstart --", "--workdir --distributed", "--seeds"),
    ("pretrain quickstart --distributed ", "auto none", "model.norm="),
    ("ablate quickstart --equal=", "--equal=flops", "--equal flops"),
    ("pretrain quickstart ", "model.norm= data.text=", "data.task= quickstart"),
    ("pretrain glue data.", "data.task=", "data.text="),
    ("pretrain glue data=text data.", "data.text=", "data.task="),
    (f"{PRETRAIN} objective.masking=span objective.masking.",
     "objective.masking.rate=", "model.norm="),
    (f"{PRETRAIN} model.norm.bias=", "model.norm.bias=true", "model.norm="),
    ("ablate quickstart pre=model.norm_placement=p",
     "pre=model.norm_placement=pre pre=model.norm_placement=post", "pre"),
    ("ablate quickstart mine=ablations/att", "mine=ablations/attention_sink",
     "ablations/attention_sink"),
    ("options model.nor", "model.norm model.norm.bias", "model.norm=")])
def test_words_that_fit_are_offered(known, line, offered, not_offered):
  *words, prefix = line.split(" ")
  words = completion.following(known, words, prefix)
  assert words.keys() >= set(offered.split()), words
  assert not words.keys() & set(not_offered.split())


def test_paths_are_offered_where_texts_are_set(known, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "books").mkdir()
  (tmp_path / "mine.py").touch()
  for words, prefix, offered in (
      (["pretrain", "mini"], "data.text=b", "data.text=books/"),
      (["pretrain"], "m", "mine.py"), (["evaluate"], "b", "books/"),
      (["pretrain", "mini", "--workdir"], "b", "books/")):
    assert offered in completion.following(known, words, prefix)


def test_changed_program_is_learned_by_another_process(known, monkeypatch):
  path, started = completion._path(), []
  monkeypatch.setattr(completion, "_write_elsewhere",
                      lambda: started.append(1))
  monkeypatch.setattr(completion, "_stamp", lambda: "another")
  assert completion._read(path) == known and not started  # A moment ago.
  os.utime(path, (1, 1))
  for _ in range(2):
    assert completion._read(path) == known
  assert started == [1]
