"""What the program says of its options and pages."""

import configparser
import dataclasses
import os
import signal

import pytest

from bert_jax import config
from bert_jax.cli.main import main
from bert_jax.config import UserError, catalog
from bert_jax.config.choices import Choice
from bert_jax.experiment import Experiment


def groups_of(options) -> list:
  """All groups of options of a tree, and all members of its choices."""
  groups = [options]
  for field in dataclasses.fields(options):
    value = getattr(options, field.name)
    members = (value.members(()).values() if isinstance(value, Choice) else
               [type(value)] if dataclasses.is_dataclass(value) else [])
    for member in members:
      if member.__module__.startswith("bert_jax."):
        groups += groups_of(member())
  return groups


def test_every_option_and_member_has_a_meaning():
  groups = groups_of(Experiment())
  assert len({type(group) for group in groups}) > 60
  assert not {type(group) for group in groups
              if not catalog.summary(type(group))}
  assert not {(type(group), option.key) for group in groups
              for option in catalog.catalog(group) if not option.meaning}


def test_options_are_those_of_an_experiment():
  """In the same order with the same values, whatever was chosen."""
  experiment = config.override(Experiment(), ["model.norm=rms", "data=table"])
  assert {o.key: o.value for o in catalog.catalog(experiment)
          } == config.options(experiment)


@pytest.mark.parametrize("words, lines", [
    (["model.norm"], ["model.norm=layer", "    How vectors are normalized",
                      "model.norm.bias=true  (true | false)"]),
    (["data.task"], ["with data=glue:", "  data.task=MRPC  (text)"]),
    (["data"], [
        "with data=table, glue, squad or code_words:",
        "  data.shots=none  (int | none)"]),
    (["model.positions"], ["with model.positions=rotary:",
                           "  model.positions.base=10000.0  (float)"]),
    (["objective.masking=span"], [
        "objective.masking=span", "objective.masking.longest_span=10  (int)"]),
    (["--search", "SpanBERT"], ["objective.masking=token"]),
    (["--search", "longest_span"], ["with objective.masking=span:"]),
    (["--search", "a user's mistake"], []),
    (["data.null_threshold"], ["  data.null_threshold=none  (float | none)"]),
    (["quickstart", "schedule"], ["schedule=constant", "      constant   "
                                  "Constant after the warm-up: no decay"]),
    (["--search", "smoothed"], []),
    (["data.held_out_percent"], [
        "data.held_out_percent=2.0  (float 0 to 100)"])])
def test_command_lists_options(words, lines, capsys):
  code = main(["options", *words])
  out, err = capsys.readouterr()
  assert code == (not lines) and (f"has {words[-1]!r}" in err) == (not lines)
  assert set(lines) <= set(out.splitlines())
  assert "None:" not in out and max(map(len, out.splitlines()), default=0) <= 80


def test_options_of_a_page_are_those_of_its_choices(capsys):
  assert main(["options", "task", "data"]) == 0
  out = capsys.readouterr().out.splitlines()
  assert out[0] == "data=table" and not [x for x in out if x[:5] == "with "]
  assert sum("data.length=" in line for line in out) == 1


@pytest.mark.parametrize("wrong, meant", [
    ("lr", "schedule.learning_rate"), ("hidden_size", "model.hidden_size"),
    ("learning_rte", "schedule.learning_rate"), ("modl", "model"),
    ("wd", "optimizer.weight_decay")])
def test_wrong_key_finds_the_nearest_of_the_tree(wrong, meant, capsys):
  with pytest.raises(UserError, match=f"did you mean '?{meant}'?[?]") as error:
    config.override(Experiment(), [f"{wrong}=1"])
  assert len(str(error.value)) < 150
  assert main(["options", wrong]) == 1
  assert f"did you mean {meant}" in capsys.readouterr().err


def test_abstract_class_is_no_member():
  with pytest.raises(UserError) as error:
    config.override(Experiment(), ["data=labeled"])
  assert "Valid: arrays, text, table, glue, squad, code_words." in str(error.value)


def test_pages_are_listed_and_printed(capsys, tmp_path, monkeypatch):
  assert main(["pages"]) == 0
  listed = capsys.readouterr().out
  assert all(f"\n{name} " in f"\n{listed}" for name in config.page_names())
  assert main(["page", "ablations/rotary"]) == 0
  mine = tmp_path / "mine.py"
  mine.write_text(capsys.readouterr().out)
  monkeypatch.chdir(tmp_path)
  for name in ("mine.py", "mine"):
    assert config.load_page(name).experiment == config.load_page(
        "ablations/rotary").experiment


def test_every_folder_of_pages_is_installed():
  settings = configparser.ConfigParser()
  settings.read(config.PAGES.parent / "setup.cfg")
  folders = {path.parent for path in config.PAGES.rglob("*.py")}
  assert dict(settings["options.data_files"]) == {
      f"share/bert_jax/{folder.relative_to(config.PAGES.parent)}":
      f"{folder.relative_to(config.PAGES.parent)}/*.py" for folder in folders}


def test_reader_that_has_enough_ends_a_command_silently(monkeypatch, capfd):
  def broken():
    raise BrokenPipeError(32, "Broken pipe")

  monkeypatch.setattr(config, "page_names", broken)
  monkeypatch.setattr(os, "dup2", lambda *_: None)
  assert main(["pages"]) == 128 + signal.SIGPIPE
  assert capfd.readouterr().err == ""
