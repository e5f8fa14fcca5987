#!/usr/bin/env python3
"""Whether weights, gradients and training agree with Hugging Face and Google.

  python tools/parity.py                  makes environments with PyTorch,
                                          transformers and TensorFlow
  python tools/parity.py --real --families albert modernbert
  python tools/parity.py --write tests/data    also small frozen copies

1. Random networks of three shapes with every head, rows with padding, float32:
   the outputs, and the gradient of every parameter for a random sum of them.
2. What was imported is exported, loaded by AutoModel without a word, saved by
   it and imported again: every bit is the same, and so are the outputs.
3. A hundred steps of AdamW without dropout on the same batches.
4. Checkpoints that TensorFlow wrote, in Google's names.

Absolute: the largest difference of two numbers. Relative: the Euclidean norm of
the differences of an array over that of the array; for the biases of keys,
whose true gradient is zero, over that of the kernel beside them. The worst
array, of the worst shape.
"""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import numpy as np

from beside import environment, print_table
from parity_theirs import (
    FAMILIES, LENGTH, MASKED, REAL, ROWS, SHAPES, STEPS, VOCABULARY, cases,
    make_inputs)

ROOT = pathlib.Path(__file__).resolve().parents[1]
BOUND, CURVE_BOUND = 1e-5, 1e-3


def batch_of(arrays):
  """Inputs as a batch; the choices of an example are packed into its row."""
  ids, mask, types = (arrays[f"in/{name}"] for name in (
      "input_ids", "attention_mask", "token_type_ids"))
  segments = ids.shape[1] if ids.ndim == 3 else 1
  rows, length = len(ids), ids.shape[-1]
  example = np.arange(segments)[None, :, None] + 1
  flat = lambda x: np.broadcast_to(x, (rows, segments, length)).reshape(
      rows, -1).astype(np.int32)
  cls = np.arange(segments, dtype=np.int32) * length
  return {"input_ids": flat(ids.reshape(rows, segments, length)),
          "token_type_ids": flat(types.reshape(rows, segments, length)),
          "position_ids": flat(np.arange(length)),
          "example_ids": flat(mask.reshape(rows, segments, length) * example),
          "cls_positions": np.broadcast_to(cls, (rows, segments)),
          "example_mask": np.ones((rows, 1), np.float32),
          "masked_positions": np.tile(np.arange(length, dtype=np.int32),
                                      (rows, 1))}


def outputs_of(arch, params, batch):
  """What PyTorch's network gives, under the same names."""
  import jax.numpy as jnp

  from bert_jax.model.encoder import Encoder
  from bert_jax.model.heads import MlmHead
  from bert_jax.objectives.network import network
  from bert_jax.objectives.replaced_tokens import DetectionHead

  if "classifier" in arch.parts:
    logits = network(arch.model, arch.objective).apply(
        params, batch)["classifier"]
    kind = arch.objective.label_kind.kind
    if kind == "regression":
      logits = logits[..., None]
    by_token = kind in ("tagging", "span")
    return {"classifier": logits if by_token else logits[:, 0]}
  encoder, variables = Encoder(arch.model), {"params": params["encoder"]}
  sequence = encoder.apply(variables, batch)
  outputs = {"sequence": sequence}
  if "encoder/pooler" in arch.parts:
    outputs["pooled"] = encoder.apply(
        variables, sequence, batch, method="pool")[:, 0]
  if "mlm" in arch.parts:
    outputs["mlm"] = MlmHead(arch.model).apply(
        {"params": params["mlm"]}, sequence, batch["masked_positions"],
        encoder.apply(variables, method="word_embeddings"))
  for part in {"nsp", "sop"} & arch.parts:
    outputs[part] = jnp.einsum("BD,DC->BC", outputs["pooled"],
                               params[part]["kernel"]) + params[part][
                                   "bias"][None]
  if "replaced" in arch.parts:
    outputs["replaced"] = DetectionHead(arch.model).apply(
        {"params": params["replaced"]}, sequence)
  return outputs


def compare(path):
  """The worst differences of a directory: of outputs and of gradients, both
  (absolute, relative)."""
  import flax.traverse_util
  import jax

  from bert_jax.interop import hf_checkpoint, importer, parameter_map
  from bert_jax.training.param_paths import leaves

  arch, flat = importer.network(path)
  params = flax.traverse_util.unflatten_dict(flat, sep="/")
  arrays = np.load(path / "arrays.npz")
  batch = batch_of(arrays)
  weights = {n.removeprefix("weight/"): arrays[n] for n in arrays.files
             if n.startswith("weight/")}

  def loss(params):
    outputs = outputs_of(arch, params, batch)
    total = sum((outputs[n] * w).sum() for n, w in weights.items())
    return total, {n: outputs[n] for n in weights}

  gradients, outputs = jax.jit(jax.grad(loss, has_aux=True))(params)
  theirs = hf_checkpoint.common_tensors({
      n.removeprefix("grad/"): arrays[n] for n in arrays.files
      if n.startswith("grad/")}, arch.family, str(path))
  positions = "embeddings.position_embeddings.weight"
  if positions in theirs:
    theirs[positions] = theirs[positions][arch.first_position:]
  ours = parameter_map.to_theirs(jax.device_get(leaves(gradients)),
                                 arch.entries, arch.model, arch.family.title)
  assert set(ours) == set(theirs), set(ours) ^ set(theirs)
  scale = lambda name: np.linalg.norm(theirs[weight_of_key(name)])
  # Of padding there is nothing to compare.
  visible = {n: w != 0 for n, w in weights.items()}
  return (worst((outputs[n][visible[n]], arrays[f"out/{n}"][visible[n]],
                 np.linalg.norm(arrays[f"out/{n}"][visible[n]]))
                for n in weights),
          worst((ours[n], theirs[n], scale(n)) for n in theirs))


def weight_of_key(name):
  """The bias of keys has the gradient 0: the name of the kernel beside it."""
  return re.sub(r"\b(key|k_lin|attn\.k)\.bias$", r"\1.weight", name)


def smooth(shape):
  """Whether gradients can be compared: that of a ReLU jumps where its input is
  zero but for rounding, as that of one unit among thousands may be."""
  return {**SHAPES, **REAL}[shape]["hidden_act"] != "relu"


def worst(triples):
  errors = [(np.asarray(a) - b, scale) for a, b, scale in triples]
  return (max(float(np.abs(x).max()) for x, _ in errors),
          max(float(np.linalg.norm(x) / scale) for x, scale in errors))


def export(path):
  """Writes the network of a directory into `exported` there."""
  from bert_jax.interop import hf_checkpoint, importer

  arch, params = importer.network(path)
  options, tensors = hf_checkpoint.written(
      arch.family, arch.model, arch.objective, params,
      max(0, arch.first_position - 1))
  hf_checkpoint.write(path / "exported", options, tensors, {})


def same(path):
  """Whether what AutoModel saved again is what was imported first."""
  from bert_jax.interop import importer

  report = json.loads((path / "report.json").read_text())
  (first, before), (again, after) = (importer.network(p) for p in (
      path, path / "again"))
  silent = not any(report["loading"].values())
  equal = (first == again and set(before) == set(after)
           and all(np.array_equal(before[n], after[n]) for n in before))
  return silent and equal, report["outputs"]


def train(folder, name):
  """The losses of a hundred steps from the network in a directory."""
  import flax.traverse_util
  import jax
  import jax.numpy as jnp

  from bert_jax.data.sources import TextData
  from bert_jax.data.tokenizers.vocabulary import Vocabulary
  from bert_jax.experiment import Experiment, recipe
  from bert_jax.interop import importer
  from bert_jax.objectives.masking import Masking
  from bert_jax.training.optimizers import AdamW
  from bert_jax.training.schedules import LinearSchedule
  from bert_jax.training.step import TrainState, train_step

  @dataclasses.dataclass(frozen=True)
  class Given(Masking):
    """The batch says what is masked."""

    def apply(self, batch, keys_B, vocabulary, step=None):
      return batch

  arch, params = importer.network(folder / name)
  objective = arch.objective
  if name == "pretraining":
    objective = dataclasses.replace(objective, masking=Given())
  options = json.loads((folder / "recipe.json").read_text())
  made = recipe(Experiment(
      data=TextData(length=LENGTH), model=arch.model, objective=objective,
      optimizer=AdamW(weight_decay=options["decay"]),
      schedule=LinearSchedule(learning_rate=options["rate"],
                              warmup_fraction=options["warmup"] / STEPS),
      steps=STEPS), Vocabulary(
          VOCABULARY, 0, 1, 2, 3, 4, np.ones(VOCABULARY, bool),
          np.ones(VOCABULARY, np.int32), np.arange(5, VOCABULARY)))
  params = jax.tree.map(jnp.asarray, flax.traverse_util.unflatten_dict(
      params, sep="/"))
  zero = jnp.zeros((), jnp.int32)
  state = TrainState(zero, zero, params, made.optimizer.init(
      made.rates.trained(params)))
  step, losses = jax.jit(functools.partial(train_step, made)), []
  arrays = np.load(folder / f"{name}.npz")
  for n in range(STEPS):
    state, pairs = step(state, training_batch(
        {key: arrays[key][n] for key in arrays.files}))
    losses.append(sum(float(total) / float(weight)
                      for key, (total, weight) in pairs.items()
                      if key.endswith("_loss")))
  return np.array(losses)


def training_batch(batch):
  """A batch of PyTorch's names in ours."""
  rows, length = batch["input_ids"].shape
  inputs = batch_of({f"in/{n}": batch[n] for n in (
      "input_ids", "attention_mask", "token_type_ids")})
  inputs["row"] = np.arange(rows, dtype=np.int32)
  if "next_sentence_label" not in batch:
    return inputs | {"labels": batch["labels"][:, None].astype(np.int32)}
  labels = batch["labels"]
  masked = np.argsort(labels < 0, axis=1, kind="stable")[:, :MASKED]
  return inputs | {
      "masked_positions": masked.astype(np.int32),
      "masked_labels": np.take_along_axis(labels, masked, 1).astype(np.int32),
      "masked_weights": np.ones(masked.shape, np.float32),
      "next_sentence_labels": batch["next_sentence_label"][:, None].astype(
          np.int32)}


def write_training(folder, networks):
  """The networks, the recipe and the batches of a hundred steps."""
  rng = np.random.default_rng(0)
  (folder / "recipe.json").write_text(json.dumps(
      {"rate": 1e-3, "warmup": 10, "decay": 0.01}))
  for name, path in networks.items():
    shutil.copytree(path, folder / name)
    batches = []
    for _ in range(10):  # Of which each comes ten times.
      batch = make_inputs(rng, "bert", name, VOCABULARY, LENGTH)
      if name == "class":
        batch["labels"] = rng.integers(0, 3, ROWS)
      else:
        places = np.argsort(rng.random((ROWS, LENGTH // 3)))[:, :MASKED]
        labels = np.full((ROWS, LENGTH), -100)
        np.put_along_axis(labels, places, rng.integers(
            5, VOCABULARY, places.shape), 1)
        batch |= {"labels": labels,
                  "next_sentence_label": rng.integers(0, 2, ROWS)}
      batches.append(batch)
    np.savez(folder / f"{name}.npz", **{
        key: np.stack([batches[n % 10][key] for n in range(STEPS)])
        for key in batches[0]})


def freeze(folder, target, families):
  """Small copies of a tiny network with every head, for the tests."""
  for family in families:
    freeze_family(folder, target, family)
  if "bert" in families:
    source = folder / "frozen" / "bert" / "mlm + nsp"
    shutil.copy(source / "state.bin", target / "pytorch_model.bin")
    shutil.copy(source / "old.bin", target / "pytorch_1.5.bin")
    shutil.copytree(source / "google", target / "google", dirs_exist_ok=True)


def freeze_family(folder, target, family):
  from safetensors.numpy import load_file

  arrays, configs = {}, {}
  for _, _, head in cases(["frozen"], [family]):
    path = folder / "frozen" / family / head
    configs[f"{family}/{head}"] = json.loads(
        (path / "config.json").read_text())
    for name, x in load_file(path / "model.safetensors").items():
      # What heads have in common is kept once.
      key = f"{family}/tensor/{name.removeprefix(FAMILIES[family].inside)}"
      if not np.array_equal(arrays.setdefault(key, x), x):
        arrays[f"{family}/{head}/{key.partition('/')[2]}"] = x
      arrays.setdefault(f"{family}/{head}/tensors", []).append(name)
    outputs = np.load(path / "arrays.npz")
    gradients = sorted(k for k in outputs.files if k.startswith("grad/"))
    for key in set(outputs.files) - set(gradients):
      arrays[f"{family}/{head}/{key}"] = outputs[key]
    # End to end in the order of their names, as an array has its price.
    arrays[f"{family}/{head}/grad"] = np.concatenate(
        [outputs[key].ravel() for key in gradients])
    assert [key.removeprefix("grad/") for key in gradients] == sorted(
        arrays[f"{family}/{head}/tensors"])
  path = target / f"parity_{family}.npz"
  np.savez_compressed(path, configs=json.dumps(configs), **arrays)
  print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def call(python, worker, folder, families, *shapes):
  """Runs a worker of parity_theirs.py in another environment."""
  theirs = pathlib.Path(__file__).with_name("parity_theirs.py")
  ended = subprocess.run(
      [python, theirs, worker, str(folder), ",".join(families), *shapes],
      text=True,
      capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1",
                                "TF_CPP_MIN_LOG_LEVEL": "3"})
  if ended.returncode:
    sys.exit(f"{worker} failed:\n{ended.stderr[-4000:]}")


def check(args, folder):
  """Prints the tables; whether all is within the bounds."""
  fine = check_networks(args, folder)
  fine &= check_exports(args, folder)
  if "bert" in args.families and args.shapes == SHAPES:
    fine &= check_training(args, folder)
    fine &= check_google(args, folder)
  return fine


def check_networks(args, folder):
  shapes, rows, fine = list(args.shapes), [], True
  call(args.torch_python, "make", folder, args.families, *shapes)
  for family in args.families:
    for head in FAMILIES[family].heads(shapes[0]):
      errors = np.array([compare(folder / shape / family / head)
                         for shape in shapes])
      errors[[not smooth(shape) for shape in shapes], 1] = 0
      errors = errors.max(0)
      fine &= bool((errors <= BOUND).all())
      rows.append([family, head, *(f"{x:.1e}" for x in errors.ravel())])
  print_table(["", "head", "outputs, absolute", "relative",
               "gradients (not of ReLU), absolute",
               "relative"], rows)
  return fine


def check_exports(args, folder):
  every = [folder.joinpath(*case) for case in cases(args.shapes, args.families)]
  for path in every:
    export(path)
  call(args.torch_python, "reload", folder, args.families, *args.shapes)
  results = [same(path) for path in every]
  for path, (equal, _) in zip(every, results):
    if not equal:
      print(f"Another after export: {path.relative_to(folder)}")
  print(f"Exported, loaded by AutoModel, saved and imported again: "
        f"{sum(equal for equal, _ in results)} of {len(results)} networks are "
        "the same to the bit; their outputs in PyTorch differ by "
        f"{max(x for _, x in results):.1e}.\n")
  return all(equal for equal, _ in results)


def check_training(args, folder):
  training, shape = folder / "training", next(iter(SHAPES))
  training.mkdir()
  write_training(training, {
      "pretraining": folder / shape / "bert" / "mlm + nsp",
      "class": folder / shape / "bert" / "class"})
  call(args.torch_python, "train", training, [])
  rows, fine = [], True
  for name in ("pretraining", "class"):
    theirs, ours = np.load(training / f"{name}_losses.npy"), train(
        training, name)
    worst_ = float(np.abs(ours - theirs).max())
    fine &= worst_ <= CURVE_BOUND
    rows.append([name, f"{theirs[0]:.5f}", f"{theirs[-1]:.5f}",
                 f"{ours[-1]:.5f}", f"{worst_:.1e}"])
  print_table([f"{STEPS} steps of AdamW", "first loss", "last, PyTorch",
               "last, this project", "largest difference"], rows)
  return fine


def check_google(args, folder):
  tensorflow = args.tensorflow_python or environment(
      "tensorflow", ["tensorflow"])
  call(tensorflow, "google", folder, [], *SHAPES)
  rows, fine = [], True
  for head in ("mlm + nsp", "class", "span"):
    errors = np.array([google(folder / shape / "bert" / head)
                      for shape in SHAPES]).max(0)
    fine &= bool((errors <= BOUND).all())
    rows.append([head, *(f"{x:.1e}" for x in errors)])
  print_table(["written by TensorFlow", "outputs, absolute", "relative"], rows)
  return fine


def google(path):
  """The worst differences of the outputs of Google's copy of a network."""
  from bert_jax.interop import importer

  (arch, before), (again, after) = (importer.network(p) for p in (
      path, path / "google"))
  assert dataclasses.replace(again, objective=arch.objective) == arch, again
  assert all(np.array_equal(before[n], after[n]) for n in before)
  shutil.copy(path / "arrays.npz", path / "google" / "arrays.npz")
  return compare(path / "google")[0]


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument("--torch-python", metavar="PATH", help=(
      "an interpreter that has torch and transformers; without it, an\n"
      "environment is made in the cache folder"))
  parser.add_argument("--tensorflow-python", metavar="PATH",
                      help="one that has tensorflow")
  parser.add_argument("--write", type=pathlib.Path, metavar="FOLDER",
                      help="write the frozen copies there, check nothing")
  parser.add_argument("--families", nargs="+", default=list(FAMILIES),
                      choices=FAMILIES, help="those alone; bert's training and "
                      "TensorFlow's checkpoints are compared with bert")
  parser.add_argument("--real", action="store_true", help=(
      "a network of BERT-base's size in place of the three"))
  args = parser.parse_args()
  args.shapes = REAL if args.real else SHAPES
  args.torch_python = args.torch_python or environment(
      "transformers", ["torch", "transformers"])
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    if args.write:
      call(args.torch_python, "make", folder, args.families, "frozen")
      if "bert" in args.families:
        call(args.tensorflow_python or environment(
            "tensorflow", ["tensorflow"]), "google", folder, [], "frozen")
      return freeze(folder, args.write, args.families)
    fine = check(args, folder)
  sys.exit(0 if fine else "Something is out of bounds.")


if __name__ == "__main__":
  sys.path.insert(0, str(ROOT))
  main()
