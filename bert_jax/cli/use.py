"""Using what was trained: evaluate, predict, embed, replay."""

import argparse
import json
import sys

import numpy as np
import rich.console

from bert_jax import files
from bert_jax.analysis import embed, predict, replay, replay_text
from bert_jax.checkpoints.reading import read_checkpoint
from bert_jax.cli import flags
from bert_jax.config import UserError
from bert_jax.reporting import markdown


def add(commands: argparse._SubParsersAction) -> None:
  evaluation = flags.command(commands, "evaluate", _evaluate,
                             "Scores of a run on held-out data.", """\
bert-jax evaluate runs/mini
bert-jax evaluate runs/mini data.evaluation_text=other.txt""")
  flags.workdir(evaluation)
  flags.overrides(evaluation, "as in data.evaluation=test.tsv")
  flags.several_hosts(evaluation)
  prediction = flags.command(
      commands, "predict", _predict,
      "Writes the rows of a file with the predictions of a fine-tuned network "
      "beside them.", """\
bert-jax predict runs/task new.tsv --output labeled.tsv
bert-jax predict runs/task new.csv --output labeled.csv \\
    data.columns.text=review""")
  flags.workdir(prediction)
  prediction.add_argument("input", help="TSV, CSV, JSON lines, CoNLL or "
                          "tfds:NAME:SPLIT. Texts are in the columns that the "
                          "run was trained on: data.columns.text, which is "
                          "\"sentence\" by default, and data.columns.pair. "
                          "Labels are not needed. Of a task of GLUE the "
                          "columns are its test file's, and the word test is "
                          "that file")
  prediction.add_argument("--output", required=True,
                          help="a .tsv, .csv or .jsonl file; one that exists "
                          "is replaced. It gets all columns of the input and, "
                          "for classes, predicted_label and probability_NAME "
                          "of each; other tasks have predicted_labels, "
                          "predicted_tags, predicted_value, predicted_choice, "
                          "predicted_answer, cosine or vector. For SQuAD a "
                          ".json file is written as its scripts read it")
  flags.overrides(prediction, "as in data.columns.text=review, where the text "
                  "is in another column than in training")
  flags.several_hosts(prediction)
  _add_embed(commands)
  _add_replay(commands)


def _add_embed(commands: argparse._SubParsersAction) -> None:
  embedding = flags.command(commands, "embed", _embed,
                            "Hidden states or pooled output of texts.", """\
bert-jax embed runs/mini "a text" "another" --output vectors.npz
bert-jax embed runs/mini - < texts.txt""")
  flags.workdir(embedding)
  embedding.add_argument("texts", nargs="*", type=flags.text, help="texts; - "
                         "reads one a line from standard input, as in - < FILE")
  embedding.add_argument("--output", help="an .npz file; without it the "
                         "vectors are printed as JSON lines")
  embedding.add_argument("--layer", type=int, default=-1,
                         help="0: the embeddings, -1: the last (default)")
  embedding.add_argument("--pooling", help="mean, cls, pooled or tokens; "
                         "default: as the network's objective compares "
                         "vectors, or mean")
  embedding.add_argument("--length", type=flags.positive, help="tokens of a "
                         "text at most; default: as in training, or as an "
                         "imported network says")
  embedding.add_argument("--normalize", action=argparse.BooleanOptionalAction,
                         help="scale each vector to the length 1; default: as "
                         "the objective says")


def _add_replay(commands: argparse._SubParsersAction) -> None:
  replaying = flags.command(
      commands, "replay", _replay,
      "The batch of a step as text: what was masked, and the loss of each row.",
      "bert-jax replay runs/mini --step 1200 --rows 4")
  flags.workdir(replaying)
  replaying.add_argument("--step", type=int, required=True,
                         help="number of the step, as in the logs, from 1")
  replaying.add_argument("--rows", type=flags.positive, default=8,
                         help="number of rows to show, those of the largest "
                         "loss first; default 8")
  replaying.add_argument("--nearest", action="store_true", help="take the "
                         "parameters of the latest checkpoint before the step "
                         "rather than run the steps between them again")
  flags.overrides(replaying, "options of the layout, as in layout.data=1")


def _evaluate(options: argparse.Namespace) -> None:
  scores = predict.of_workdir(options.workdir, options.overrides,
                              flags.say)
  flags.say(markdown.table(["held out", "value"], list(scores.items())))


def _predict(options: argparse.Namespace) -> None:
  count = predict.predict_file(options.workdir, options.input, options.output,
                               options.overrides, flags.say)
  flags.say(f"{count} prediction{'s' * (count != 1)} in {options.output}")


def _embed(options: argparse.Namespace) -> None:
  texts = [line for text in options.texts for line in (
      flags.lines(sys.stdin.buffer.read()) if text == "-" else [text])]
  if not texts:
    raise UserError("Give texts, or - to read one a line.")
  if options.output:
    files.check_folder(options.output)
    if np.array(texts).tolist() != texts:
      raise UserError(f"{options.output} cannot hold a text that ends in NUL; "
                      "without --output, the vectors are printed.")
  vectors = embed.embed(read_checkpoint(options.workdir), texts,
                        layer=options.layer, pooling=options.pooling,
                        length=options.length, normalize=options.normalize)
  if not options.output:
    for text, vector in zip(texts, vectors):
      print(json.dumps({"text": text, "vector": vector.tolist()}))
    return
  arrays = ({f"text_{i}": v for i, v in enumerate(vectors)}
            if options.pooling == "tokens" else {"vectors": np.stack(vectors)})
  with (files.writing(options.output),
        files.replacing(options.output) as file):
    np.savez(file, texts=np.array(texts), **arrays)
  print(f"{len(texts)} texts in {options.output}")


def _replay(options: argparse.Namespace) -> None:
  batch = replay.replay(options.workdir, options.step, options.nearest,
                        options.overrides)
  rich.console.Console().print(replay_text.text(batch, options.rows),
                               soft_wrap=True, highlight=False)
