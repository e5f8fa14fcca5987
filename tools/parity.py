#!/usr/bin/env python3
"""Whether weights, gradients and training agree with Hugging Face and Google.

  python tools/parity.py                  makes environments with PyTorch,
                                          transformers and TensorFlow
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
import shutil
import subprocess
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
CACHE = pathlib.Path(
    os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
BOUND, CURVE_BOUND, STEPS = 1e-5, 1e-3, 100
VOCABULARY, ROWS, LENGTH, CHOICES, MASKED = 300, 4, 24, 3, 4
SHAPES = {
    "2 x 64": dict(num_hidden_layers=2, hidden_size=64, num_attention_heads=2,
                   intermediate_size=128, hidden_act="gelu"),
    "3 x 96": dict(num_hidden_layers=3, hidden_size=96, num_attention_heads=4,
                   intermediate_size=200, hidden_act="gelu_new",
                   layer_norm_eps=1e-5),
    "4 x 128": dict(num_hidden_layers=4, hidden_size=128,
                    num_attention_heads=8, intermediate_size=512,
                    hidden_act="relu")}
FROZEN = dict(num_hidden_layers=1, hidden_size=8, num_attention_heads=2,
              intermediate_size=12, hidden_act="gelu")
# Of each head: the class's ending, and options of its configuration.
HEADS = {
    "encoder": ("Model", dict(pooler=False)),
    "pooler": ("Model", {}),
    "mlm + nsp": ("ForPreTraining", {}),
    "mlm": ("ForMaskedLM", {}),
    "nsp": ("ForNextSentencePrediction", {}),
    "class": ("ForSequenceClassification", dict(num_labels=3)),
    "number": ("ForSequenceClassification", dict(
        num_labels=1, problem_type="regression")),
    "classes": ("ForSequenceClassification", dict(
        num_labels=4, problem_type="multi_label_classification")),
    "tags": ("ForTokenClassification", dict(num_labels=5)),
    "span": ("ForQuestionAnswering", {}),
    "choice": ("ForMultipleChoice", {})}
FAMILIES = {"bert": list(HEADS), "roberta": [
    head for head in HEADS if head not in ("mlm + nsp", "nsp")]}


def cases(shapes):
  for shape in shapes:
    for family, heads in FAMILIES.items():
      for head in heads:
        yield shape, family, head


# What the worker with PyTorch does.


def torch_worker(folder, shapes, vocabulary, length):
  """Writes a directory for each case: the network, inputs, outputs, gradients.
  """
  import torch
  import transformers

  transformers.logging.set_verbosity_error()
  for number, (shape, family, head) in enumerate(cases(shapes)):
    model = torch_model(family, head, vocabulary, length, shapes[shape])
    path = folder / shape / family / head
    model.save_pretrained(path)
    rng = np.random.default_rng(number)
    inputs = make_inputs(rng, family, head, vocabulary, length)
    outputs = torch_outputs(model, inputs)
    weights = {}
    for name, output in outputs.items():
      weight = rng.normal(size=output.shape).astype(np.float32)
      if output.shape[:2] == inputs["attention_mask"].shape:
        weight *= inputs["attention_mask"][:, :, None]  # Not of padding.
      weights[name] = weight / np.count_nonzero(weight)
    sum((outputs[n] * torch.from_numpy(w)).sum()
        for n, w in weights.items()).backward()
    arrays = {f"in/{n}": x.astype(np.int32) for n, x in inputs.items()}
    arrays |= {f"out/{n}": x.detach().numpy() for n, x in outputs.items()}
    arrays |= {f"weight/{n}": x for n, x in weights.items()}
    arrays |= {f"grad/{n}": x.grad.numpy()
               for n, x in model.named_parameters()}
    np.savez(path / "arrays.npz", **arrays)
    if head in ("mlm + nsp", "class", "span") and family == "bert":
      np.savez(path / "state.npz", **{
          n: x.numpy() for n, x in model.state_dict().items()})
    if head == "mlm + nsp":
      torch.save(model.state_dict(), path / "state.bin")
      torch.save(model.state_dict(), path / "old.bin",  # As before 1.6.
                 _use_new_zipfile_serialization=False)


def torch_model(family, head, vocabulary, length, shape):
  """A network whose every parameter is drawn."""
  import torch
  import transformers

  ending, options = HEADS[head]
  # RoBERTa's masked-LM head has no other activation.
  options = {**shape, **options, **(
      {"hidden_act": "gelu"} if family == "roberta" else {})}
  arguments = ({} if options.pop("pooler", True)
               else {"add_pooling_layer": False})
  first = 2 if family == "roberta" else 0
  name = family.capitalize()
  config = getattr(transformers, f"{name}Config")(
      vocab_size=vocabulary, max_position_embeddings=length + first,
      type_vocab_size=1 if first else 2, hidden_dropout_prob=0.0,
      attention_probs_dropout_prob=0.0, **options)
  model = getattr(transformers, f"{name}{ending}")(config, **arguments).eval()
  # The same for every head, so that heads lie on the same encoder.
  torch.manual_seed(first)
  for path, x in model.named_parameters():
    torch.nn.init.normal_(x, std=0.1 if x.ndim > 1 else 0.05)
    if path.endswith("LayerNorm.weight") or path.endswith("layer_norm.weight"):
      torch.nn.init.normal_(x, 1.0, 0.1)
  return model


def make_inputs(rng, family, head, vocabulary, length):
  """Rows that end in padding, as numpy arrays of int64."""
  shape = (2, CHOICES, length) if head == "choice" else (ROWS, length)
  lengths = rng.integers(length // 3, length + 1, shape[:-1])
  lengths[0] = length
  mask = np.arange(length) < lengths[..., None]
  pad = 1 if family == "roberta" else 0
  ids = np.where(mask, rng.integers(5, vocabulary, shape), pad)
  types = mask & (np.arange(length) >= lengths[..., None] // 2)
  if family == "roberta":
    types = np.zeros_like(types)
  return {"input_ids": ids, "attention_mask": mask.astype(np.int64),
          "token_type_ids": types.astype(np.int64)}


def torch_outputs(model, inputs):
  import torch

  found = model(**{n: torch.from_numpy(x) for n, x in inputs.items()})
  names = {"last_hidden_state": "sequence", "pooler_output": "pooled",
           "prediction_logits": "mlm", "seq_relationship_logits": "nsp"}
  if "start_logits" in found:
    return {"classifier": torch.stack(
        [found.start_logits, found.end_logits], -1)}
  kind = type(model).__name__
  of_logits = ("mlm" if kind.endswith("ForMaskedLM") else
               "nsp" if kind.endswith("SentencePrediction") else "classifier")
  return {names.get(n, of_logits): x for n, x in found.items()
          if x is not None}


def torch_reload(folder, shapes):
  """Loads exported networks as users do, and saves what was loaded."""
  import torch
  import transformers

  transformers.logging.set_verbosity_error()
  for shape, family, head in cases(shapes):
    path = folder / shape / family / head
    ending = HEADS[head][0]
    auto = getattr(transformers, f"Auto{'Model' if ending == 'Model' else ''}"
                   f"{'' if ending == 'Model' else 'Model' + ending}")
    arguments = {"add_pooling_layer": False} if head == "encoder" else {}
    model, told = auto.from_pretrained(
        path / "exported", output_loading_info=True, **arguments)
    arrays = np.load(path / "arrays.npz")
    with torch.no_grad():
      outputs = torch_outputs(model.eval(), {
          n: arrays[f"in/{n}"].astype(np.int64) for n in (
              "input_ids", "attention_mask", "token_type_ids")})
    model.save_pretrained(path / "again")
    (path / "told.json").write_text(json.dumps({
        "loading": {k: sorted(map(str, v)) for k, v in told.items()},
        "outputs": max(float(np.abs(
            (x.numpy() - arrays[f"out/{n}"])[arrays[f"weight/{n}"] != 0]).max())
                       for n, x in outputs.items())}))


def torch_train(folder):
  """A hundred losses of each of two networks, from the directories there."""
  import torch
  import transformers

  for name, auto in (("pretraining", "AutoModelForPreTraining"),
                     ("class", "AutoModelForSequenceClassification")):
    model = getattr(transformers, auto).from_pretrained(
        folder / name).train()
    plain = [x for n, x in model.named_parameters()
             if n.endswith("bias") or "LayerNorm" in n]
    decayed = [x for n, x in model.named_parameters()
               if not (n.endswith("bias") or "LayerNorm" in n)]
    recipe = json.loads((folder / "recipe.json").read_text())
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": recipe["decay"]},
         {"params": plain, "weight_decay": 0.0}],
        lr=recipe["rate"], betas=(0.9, 0.999), eps=1e-6)
    schedule = transformers.get_linear_schedule_with_warmup(
        optimizer, recipe["warmup"], STEPS)
    arrays, losses = np.load(folder / f"{name}.npz"), []
    for step in range(STEPS):
      optimizer.zero_grad()
      batch = {n: torch.from_numpy(arrays[n][step].astype(np.int64))
               for n in arrays.files}
      loss = model(**batch).loss
      loss.backward()
      torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
      optimizer.step()
      schedule.step()
      losses.append(loss.item())
    np.save(folder / f"{name}_losses.npy", losses)


# What the worker with TensorFlow does.


def tensorflow_worker(folder, shapes):
  """Writes what PyTorch drew as Google's code saves it."""
  import tensorflow.compat.v1 as tf

  tf.disable_eager_execution()
  for shape in shapes:
    for head in ("mlm + nsp", "class", "span"):
      path = folder / shape / "bert" / head
      state = dict(np.load(path / "state.npz"))
      state = {n: x for n, x in state.items()
               if not n.startswith("cls.predictions.decoder")}
      google = path / "google"
      google.mkdir()
      with tf.Graph().as_default():
        for name, x in state.items():
          name, x = google_name(name), x.T if is_kernel(name) else x
          tf.Variable(x, name=name)
          if head != "mlm + nsp":  # Of a fine-tuning: the optimizer's.
            tf.Variable(np.zeros_like(x), name=f"{name}/adam_m")
            tf.Variable(np.zeros_like(x), name=f"{name}/adam_v")
        tf.Variable(np.int64(7), name="global_step")
        with tf.Session() as session:
          session.run(tf.global_variables_initializer())
          tf.train.Saver().save(session, str(google / "bert_model.ckpt"),
                                write_meta_graph=False, write_state=False)
      options = json.loads((path / "config.json").read_text())
      (google / "bert_config.json").write_text(json.dumps({
          n: options[n] for n in (
              "attention_probs_dropout_prob", "hidden_act",
              "hidden_dropout_prob", "hidden_size", "initializer_range",
              "intermediate_size", "max_position_embeddings",
              "num_attention_heads", "num_hidden_layers", "type_vocab_size",
              "vocab_size", "layer_norm_eps")}))


def is_kernel(name):
  return (name.endswith(".weight") and "LayerNorm" not in name
          and "embeddings" not in name and not name.startswith(
              ("classifier", "qa_outputs", "cls.seq_relationship")))


def google_name(name):
  """As modeling.py, run_pretraining.py, run_classifier.py and run_squad.py
  call the variables."""
  heads = {"cls.predictions.bias": "cls/predictions/output_bias",
           "cls.seq_relationship.weight": "cls/seq_relationship/output_weights",
           "cls.seq_relationship.bias": "cls/seq_relationship/output_bias",
           "classifier.weight": "output_weights",
           "classifier.bias": "output_bias",
           "qa_outputs.weight": "cls/squad/output_weights",
           "qa_outputs.bias": "cls/squad/output_bias"}
  if name in heads:
    return heads[name]
  path = name.replace(".layer.", ".layer_")
  if "LayerNorm" in path:
    path = path.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
        "LayerNorm.bias", "LayerNorm.beta")
  elif "embeddings" in path:
    path = path.removesuffix(".weight")
  elif is_kernel(name):
    path = path.removesuffix("weight") + "kernel"
  return path.replace(".", "/")


# This project's side.


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


def outputs_of(found, params, batch):
  """What PyTorch's network gives, under the same names."""
  import jax.numpy as jnp

  from bert_jax.model.encoder import Encoder
  from bert_jax.model.heads import MlmHead
  from bert_jax.objectives.network import Network

  if "classifier" in found.parts:
    logits = Network(found.model, found.objective).apply(
        {"params": params}, batch)["classifier"]
    kind = found.objective.label_kind
    if kind == "number":
      logits = logits[..., None]
    return {"classifier": logits if kind in ("tags", "span") else logits[:, 0]}
  encoder, variables = Encoder(found.model), {"params": params["encoder"]}
  sequence = encoder.apply(variables, *(batch[name] for name in (
      "input_ids", "token_type_ids", "position_ids", "example_ids")))
  outputs = {"sequence": sequence}
  if "encoder/pooler" in found.parts:
    outputs["pooled"] = encoder.apply(
        variables, sequence, batch["cls_positions"], method="pool")[:, 0]
  if "mlm" in found.parts:
    outputs["mlm"] = MlmHead(found.model).apply(
        {"params": params["mlm"]}, sequence, batch["masked_positions"],
        encoder.apply(variables, method="word_embeddings"))
  if "nsp" in found.parts:
    outputs["nsp"] = jnp.einsum("BD,DC->BC", outputs["pooled"],
                                params["nsp"]["kernel"]) + params["nsp"][
                                    "bias"][None]
  return outputs


def compare(path):
  """The worst differences of a directory: of outputs and of gradients, both
  (absolute, relative)."""
  import flax.traverse_util
  import jax

  from bert_jax.interop import huggingface, names, sources
  from bert_jax.training.paths import leaves

  found, flat = sources.network(path)
  params = flax.traverse_util.unflatten_dict(flat, sep="/")
  arrays = np.load(path / "arrays.npz")
  batch = batch_of(arrays)
  weights = {n.removeprefix("weight/"): arrays[n] for n in arrays.files
             if n.startswith("weight/")}

  def loss(params):
    outputs = outputs_of(found, params, batch)
    total = sum((outputs[n] * w).sum() for n, w in weights.items())
    return total, {n: outputs[n] for n in weights}

  gradients, outputs = jax.jit(jax.grad(loss, has_aux=True))(params)
  theirs = huggingface.common_tensors({
      n.removeprefix("grad/"): arrays[n] for n in arrays.files
      if n.startswith("grad/")}, str(path))
  positions = "embeddings.position_embeddings.weight"
  theirs[positions] = theirs[positions][found.first_position:]
  ours = names.to_theirs(jax.device_get(leaves(gradients)), found.model)
  assert set(ours) == set(theirs), set(ours) ^ set(theirs)
  scale = lambda name: np.linalg.norm(
      theirs[name.replace("key.bias", "key.weight")])
  # Of padding there is nothing to compare.
  visible = {n: w != 0 for n, w in weights.items()}
  return (worst((outputs[n][visible[n]], arrays[f"out/{n}"][visible[n]],
                 np.linalg.norm(arrays[f"out/{n}"][visible[n]]))
                for n in weights),
          worst((ours[n], theirs[n], scale(n)) for n in theirs))


def worst(triples):
  found = [(np.asarray(a) - b, scale) for a, b, scale in triples]
  return (max(float(np.abs(x).max()) for x, _ in found),
          max(float(np.linalg.norm(x) / scale) for x, scale in found))


def export(path):
  """Writes the network of a directory into `exported` there."""
  from bert_jax.interop import huggingface, sources

  found, params = sources.network(path)
  options, tensors = huggingface.written(
      found.model, found.objective, params, found.first_position or None)
  huggingface.write(path / "exported", options, tensors, {})


def same(path):
  """Whether what AutoModel saved again is what was imported first."""
  from bert_jax.interop import sources

  told = json.loads((path / "told.json").read_text())
  (first, before), (again, after) = (sources.network(p) for p in (
      path, path / "again"))
  silent = not any(told["loading"].values())
  equal = (first == again and set(before) == set(after)
           and all(np.array_equal(before[n], after[n]) for n in before))
  return silent and equal, told["outputs"]


def train(folder, name):
  """The losses of a hundred steps from the network in a directory."""
  import flax.traverse_util
  import jax
  import jax.numpy as jnp

  from bert_jax.data.datasets import TextData
  from bert_jax.data.loaded import Vocabulary
  from bert_jax.experiment import Experiment, recipe
  from bert_jax.interop import sources
  from bert_jax.objectives.masking import Masking
  from bert_jax.training.optimizers import AdamW
  from bert_jax.training.schedules import LinearSchedule
  from bert_jax.training.step import TrainState, train_step

  @dataclasses.dataclass(frozen=True)
  class Given(Masking):
    """The batch says what is masked."""

    def apply(self, batch, keys_B, vocabulary):
      return batch

  found, params = sources.network(folder / name)
  objective = found.objective
  if name == "pretraining":
    objective = dataclasses.replace(objective, masking=Given())
  options = json.loads((folder / "recipe.json").read_text())
  made = recipe(Experiment(
      data=TextData(length=LENGTH), model=found.model, objective=objective,
      optimizer=AdamW(weight_decay=options["decay"]),
      schedule=LinearSchedule(learning_rate=options["rate"],
                              warmup=options["warmup"] / STEPS),
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
  whole = batch_of({f"in/{n}": batch[n] for n in (
      "input_ids", "attention_mask", "token_type_ids")})
  whole["row"] = np.arange(rows, dtype=np.int32)
  if "next_sentence_label" not in batch:
    return whole | {"labels": batch["labels"][:, None].astype(np.int32)}
  labels = batch["labels"]
  masked = np.argsort(labels < 0, axis=1, kind="stable")[:, :MASKED]
  return whole | {
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


def freeze(folder, target):
  """Small copies of a tiny network with every head, for the tests."""
  from safetensors.numpy import load_file

  arrays, configs = {}, {}
  for _, family, head in cases(["frozen"]):
    path = folder / "frozen" / family / head
    configs[f"{family}/{head}"] = json.loads(
        (path / "config.json").read_text())
    for name, x in load_file(path / "model.safetensors").items():
      plain = name.removeprefix(f"{family}.")
      of_all = plain.startswith(("embeddings", "encoder", "pooler"))
      key = f"{family}/tensor/{plain}" if of_all else (
          f"{family}/{head}/tensor/{plain}")
      if key in arrays and not np.array_equal(arrays[key], x):
        raise SystemExit(f"{path}: {name} is not that of the other heads.")
      arrays[key] = x
      arrays.setdefault(f"{family}/{head}/tensors", []).append(name)
    found = np.load(path / "arrays.npz")
    gradients = sorted(k for k in found.files if k.startswith("grad/"))
    for key in set(found.files) - set(gradients):
      arrays[f"{family}/{head}/{key}"] = found[key]
    # End to end in the order of their names, as an array has its price.
    arrays[f"{family}/{head}/grad"] = np.concatenate(
        [found[key].ravel() for key in gradients])
    names = [key.removeprefix("grad/") for key in gradients]
    assert names == sorted(arrays[f"{family}/{head}/tensors"])
  np.savez_compressed(target / "parity.npz", configs=json.dumps(configs),
                      **arrays)
  source = folder / "frozen" / "bert" / "mlm + nsp"
  shutil.copy(source / "state.bin", target / "pytorch_model.bin")
  shutil.copy(source / "old.bin", target / "pytorch_1.5.bin")
  shutil.copytree(source / "google", target / "google", dirs_exist_ok=True)
  size = sum(p.stat().st_size for p in (
      target / "parity.npz", *target.glob("pytorch_*.bin"),
      *(target / "google").iterdir()))
  print(f"{target}: {size / 1000:.0f} kB")


def environment(name, *requirements):
  """The interpreter of an environment, made at the first call."""
  folder = CACHE / "bert_jax" / name
  python, done = folder / "bin" / "python", folder / "done"
  if not done.exists() or done.read_text() != " ".join(requirements):
    print(f"Making an environment with {', '.join(requirements)} in {folder} "
          "...", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements],
                   check=True)
    done.write_text(" ".join(requirements))
  return str(python)


def call(python, worker, folder, *shapes):
  """Runs a worker of this file in another environment."""
  found = subprocess.run(
      [python, __file__, "--worker", worker, str(folder), *shapes], text=True,
      capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1",
                                "TF_CPP_MIN_LOG_LEVEL": "3"})
  if found.returncode:
    sys.exit(f"{worker} failed:\n{found.stderr[-4000:]}")


def work(worker, folder, *shapes):
  folder = pathlib.Path(folder)
  frozen = shapes == ("frozen",)
  chosen = {name: FROZEN if frozen else SHAPES[name] for name in shapes}
  match worker:
    case "make":
      torch_worker(folder, chosen, *((40, 10) if frozen else (
          VOCABULARY, LENGTH)))
    case "reload":
      torch_reload(folder, chosen)
    case "train":
      torch_train(folder)
    case "google":
      tensorflow_worker(folder, chosen)


def print_table(head, rows):
  print("| " + " | ".join(head) + " |")
  print("| " + " | ".join("---" for _ in head) + " |")
  for row in rows:
    print("| " + " | ".join(map(str, row)) + " |")
  print(flush=True)


def check(args, folder):
  """Prints the tables; whether all is within the bounds."""
  torch, tensorflow = args.torch_python, args.tensorflow_python
  shapes, fine = list(SHAPES), True
  call(torch, "make", folder, *shapes)
  rows = []
  for family, heads in FAMILIES.items():
    for head in heads:
      found = np.array([compare(folder / shape / family / head)
                        for shape in shapes]).max(0)
      fine &= bool((found <= BOUND).all())
      rows.append([family, head, *(f"{x:.1e}" for x in found.ravel())])
  print_table(["", "head", "outputs, absolute", "relative",
               "gradients, absolute", "relative"], rows)

  for case in cases(shapes):
    export(folder.joinpath(*case))
  call(torch, "reload", folder, *shapes)
  found = [same(folder.joinpath(*case)) for case in cases(shapes)]
  fine &= all(equal for equal, _ in found)
  print(f"Exported, loaded by AutoModel, saved and imported again: "
        f"{sum(equal for equal, _ in found)} of {len(found)} networks are the "
        "same to the bit; their outputs in PyTorch differ by "
        f"{max(x for _, x in found):.1e}.\n")

  training = folder / "training"
  training.mkdir()
  write_training(training, {
      "pretraining": folder / shapes[0] / "bert" / "mlm + nsp",
      "class": folder / shapes[0] / "bert" / "class"})
  call(torch, "train", training)
  rows = []
  for name in ("pretraining", "class"):
    theirs, ours = np.load(training / f"{name}_losses.npy"), train(
        training, name)
    worst_ = float(np.abs(ours - theirs).max())
    fine &= worst_ <= CURVE_BOUND
    rows.append([name, f"{theirs[0]:.5f}", f"{theirs[-1]:.5f}",
                 f"{ours[-1]:.5f}", f"{worst_:.1e}"])
  print_table([f"{STEPS} steps of AdamW", "first loss", "last, PyTorch",
               "last, this project", "largest difference"], rows)

  call(tensorflow, "google", folder, *shapes)
  rows = []
  for head in ("mlm + nsp", "class", "span"):
    found = np.array([google(folder / shape / "bert" / head)
                      for shape in shapes]).max(0)
    fine &= bool((found <= BOUND).all())
    rows.append([head, *(f"{x:.1e}" for x in found)])
  print_table(["written by TensorFlow", "outputs, absolute", "relative"], rows)
  return fine


def google(path):
  """The worst differences of the outputs of Google's copy of a network."""
  from bert_jax.interop import sources

  (found, before), (again, after) = (sources.network(p) for p in (
      path, path / "google"))
  assert dataclasses.replace(again, objective=found.objective) == found, again
  assert all(np.array_equal(before[n], after[n]) for n in before)
  shutil.copy(path / "arrays.npz", path / "google" / "arrays.npz")
  return compare(path / "google")[0]


def main():
  if sys.argv[1:2] == ["--worker"]:
    return work(*sys.argv[2:])
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument("--torch-python", metavar="PATH", help=(
      "an interpreter that has torch and transformers; without it, an\n"
      "environment is made in the cache folder"))
  parser.add_argument("--tensorflow-python", metavar="PATH",
                      help="one that has tensorflow")
  parser.add_argument("--write", type=pathlib.Path, metavar="FOLDER",
                      help="write the frozen copies there, check nothing")
  args = parser.parse_args()
  args.torch_python = args.torch_python or environment(
      "transformers", "torch", "transformers")
  args.tensorflow_python = args.tensorflow_python or environment(
      "tensorflow", "tensorflow")
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    if args.write:
      call(args.torch_python, "make", folder, "frozen")
      call(args.tensorflow_python, "google", folder, "frozen")
      return freeze(folder, args.write)
    fine = check(args, folder)
  sys.exit(0 if fine else "Something is out of bounds.")


if __name__ == "__main__":
  sys.path.insert(0, str(ROOT))
  main()
