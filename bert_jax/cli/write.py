"""Texts that a network writes, and how likely it holds texts to be."""

import argparse
import json
import sys

from bert_jax import files
from bert_jax.analysis import likelihood
from bert_jax.analysis.generate import Decoding, Writer
from bert_jax.checkpoints.reading import read_checkpoint
from bert_jax.cli import flags
from bert_jax.config import UserError

_DEFAULT = Decoding()


def add(commands: argparse._SubParsersAction) -> None:
  generating = flags.command(
      commands, "generate", _generate, "Texts that a causal or prefix language "
      "model writes.", """\
bert-jax generate runs/characters "ROMEO:" --tokens 100 --temperature 0.8
bert-jax generate runs/prefix "Once upon a" --beams 4
bert-jax generate runs/characters "The cat" --choices " sat" " flew\"""")
  flags.workdir(generating)
  generating.add_argument("prompts", nargs="+", type=flags.text,
                          metavar="PROMPT", help="how a text begins")
  generating.add_argument("--tokens", type=flags.positive,
                          default=_DEFAULT.tokens, help="tokens that are "
                          "written at most; default %(default)s")
  generating.add_argument("--temperature", type=float,
                          default=_DEFAULT.temperature, help="divides the "
                          "logits; 0: always the likeliest token; default "
                          "%(default)s")
  generating.add_argument("--top-k", type=int, default=_DEFAULT.top_k,
                          help="draw from that many likeliest tokens; 0: all "
                          "(default)")
  generating.add_argument("--top-p", type=float, default=_DEFAULT.top_p,
                          help="draw from the likeliest tokens whose "
                          "probabilities sum to it; 1: all (default)")
  generating.add_argument("--beams", type=flags.positive,
                          default=_DEFAULT.beams, help="beam search with that "
                          "many sequences; default 1: none")
  generating.add_argument("--seed", type=int, default=_DEFAULT.seed,
                          help="of the draws; default %(default)s")
  generating.add_argument("--choices", nargs="+", type=flags.text,
                          metavar="TEXT", help="write nothing; rank these as "
                          "what follows each prompt")
  measuring = flags.command(
      commands, "likelihood", _likelihood, "The log-probability of each line "
      "of a file: of a causal network, or the pseudo-log-likelihood of a "
      "masked one.", """\
bert-jax likelihood runs/characters lines.txt
bert-jax likelihood runs/mini - < lines.txt""")
  flags.workdir(measuring)
  measuring.add_argument("file", help="a text a line; - is standard input")


def _generate(options: argparse.Namespace) -> None:
  writer = Writer(read_checkpoint(options.workdir))
  if options.choices:
    for prompt in options.prompts:
      ranked = sorted(zip(writer.rank(prompt, options.choices),
                          options.choices), reverse=True)
      for log_probability, choice in ranked:
        print(json.dumps({"prompt": prompt, "choice": choice,
                          "log_probability": round(log_probability, 4)},
                         ensure_ascii=False))
    return
  written = writer.write(options.prompts, Decoding(
      options.tokens, options.temperature, options.top_k, options.top_p,
      options.beams, seed=options.seed))
  for prompt, text in zip(options.prompts, written):
    print(prompt + text.text)


def _likelihood(options: argparse.Namespace) -> None:
  saved = read_checkpoint(options.workdir)
  measure = likelihood.measure(saved.manifest.experiment.objective)
  if options.file == "-":
    content = sys.stdin.buffer.read()
  else:
    with files.reading(options.file) as file:
      content = file.read()
  lines = [line for line in flags.lines(content, options.file)
           if line.strip()]
  if not lines:
    raise UserError(f"{options.file} holds no line of text.")
  results = likelihood.likelihoods(saved, lines)
  for line, result in zip(lines, results):
    print(json.dumps({"text": line, measure.replace("-", "_"): round(
        result.log_probability, 4), "tokens": result.tokens,
        "bits_per_byte": round(result.bits_per_byte, 4)}, ensure_ascii=False))
  total = likelihood.Likelihood(
      *(sum(getattr(result, name) for result in results)
        for name in ("log_probability", "tokens", "bytes")))
  flags.say(f"{len(lines)} lines, {total.tokens:,} tokens: {measure} "
            f"{total.log_probability / total.tokens:.4f} nats a token, "
            f"{total.bits_per_byte:.4f} bits a byte")
