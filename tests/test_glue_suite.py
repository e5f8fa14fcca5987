"""The GLUE suite: its protocol, its table, and tasks that run only once."""

import json
import re

import jax
import numpy as np
import pytest

from bert_jax.cli.main import main
from bert_jax.data.labeled.glue import NLI
from bert_jax.data.tokenizers.choices import WordPieceTokenizer
from bert_jax.interop import importer
from bert_jax.objectives.mlm import Mlm
from bert_jax.studies import glue_table
from tests import small_run, tiny


def result(rate_scores: dict[float, list[float | None]],
           loss: float | None = 0.5) -> dict:
  """Results of MRPC as the suite stores them."""
  return {"metrics": ["f1", "accuracy"], "results": [
      {"seed": seed, "learning_rate": rate, "degenerate": score is None,
       "scores": {"f1": score, "accuracy": score, "loss": loss}}
      for rate, scores in rate_scores.items()
      for seed, score in enumerate(scores)]}


def test_table_shows_the_rate_of_the_best_median():
  rates = result({1e-5: [0.99, 0.6, 0.6], 1e-4: [0.7, 0.8, 0.9],
                  1e-3: [0.95, None, None]})
  assert glue_table.chosen_rate(rates) == 1e-4
  table = glue_table.table({"MRPC": rates})
  f1, accuracy, mean = (line.split("|")[1:-1]
                        for line in table.splitlines()[2:])
  assert [cell.strip() for cell in f1] == [
      "MRPC", "f1", "0.0001", "80.0", "80.0", "10.0", "55.2 to 104.8", "3",
      "0"]
  assert [cell.strip() for cell in mean][:4] == ["mean of 1", "", "", "80.0"]


def test_diverged_rate_is_not_chosen():
  """Its constant prediction may score as well as another rate."""
  good, lost = result({1e-4: [0.6]}), result({1e-3: [0.6]}, loss=None)
  good["results"] = lost["results"] + good["results"]
  assert glue_table.chosen_rate(good) == 1e-4


def test_seed_without_a_score_shows_in_the_table():
  table = glue_table.table({"MRPC": result({1e-4: [0.7, 0.8, None]})})
  cells = [cell.strip() for cell in table.splitlines()[2].split("|")[1:-1]]
  assert cells[3:5] == ["nan", "nan"] and cells[-1] == "1"


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> list[str]:
  """Arguments of the command for a small network and a small task."""
  folder = tmp_path_factory.mktemp("glue")
  rng = np.random.default_rng(0)
  (folder / "MNLI").mkdir()
  for split, count in (("train", 40), ("dev_matched", 12),
                       ("dev_mismatched", 12), ("test_matched", 5)):
    label = "" if split.startswith("test") else "\tgold_label"
    lines = ["index\tsentence1\tsentence2" + label]
    for i in range(count):
      a, b = small_run.sentence(rng), small_run.sentence(rng)
      lines.append(f"{i}\t{a}\t{b}" + (label and f"\t{NLI[i % 3]}"))
    (folder / "MNLI" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
  tokenizer = WordPieceTokenizer(vocab_size=60).build(
      [small_run.sentence(rng) for _ in range(100)])
  recipe = tiny.recipe(objective=Mlm(), vocab_size=60, num_hidden_layers=1,
                       max_position_embeddings=32)
  params = jax.jit(recipe.init)(np.int32(0), tiny.batch(size=1)).params
  importer.save(importer.Imported(
      recipe.model, params, Mlm(), tokenizer, "a test", 32),
      folder / "bert")
  return ["glue", "--workdir", str(folder / "suite"), "--seeds", "2",
          f"init_from={folder}/bert", f"data.folder={folder}",
          "data.length=32", "epochs=1", "log_every=1"]


def test_suite_runs_once_and_records_its_protocol(suite, capsys, tmp_path):
  assert main(suite) == 0
  printed = capsys.readouterr().out
  assert "MNLI: 2 members" in printed and "| mean of 1" in printed
  assert "Protocol glue_suite@1: trained on the whole of train" in printed
  workdir = tmp_path.parent.joinpath(suite[2])
  saved, = json.loads((workdir / "results.json").read_text()).values()
  assert saved["protocol"]["version"] == 1
  assert [o["seed"] for o in saved["results"]] == [0, 1]
  in_step, examples, in_epoch = map(int, re.search(
      r"steps of (\d+) rows; (\d+) examples in (\d+) rows", printed).groups())
  assert examples == 40
  assert abs(in_step * examples / in_epoch - 32) < examples / in_epoch
  assert "| mismatched accuracy |" in re.sub(" +", " ", printed)
  assert {"accuracy", "mismatched_accuracy"} <= (
      saved["results"][0]["scores"].keys())
  lines = (workdir / "submission" / "MNLI-m.tsv").read_text().splitlines()
  assert lines[0] == "index\tprediction" and len(lines) == 6
  # Finished tasks do not run again, and other options do not reuse them.
  assert main(suite) == 0
  assert "MNLI: 2 members" not in capsys.readouterr().out
  assert main([*suite, "epochs=2"]) == 1
  assert "of another protocol" in capsys.readouterr().err


def test_missing_task_is_explained(suite, capsys):
  assert main([*suite, "--tasks", "CoLA"]) == 1
  assert "no train and dev files of CoLA" in capsys.readouterr().err


@pytest.mark.parametrize("override", ["best=accuracy", "data.shots=4",
                                      "objective=regression"])
def test_option_against_the_protocol_is_refused(suite, capsys, override):
  assert main([*suite, override]) == 1
  option, _, given = override.partition("=")
  assert f"{option}={given}: the suite" in capsys.readouterr().err
