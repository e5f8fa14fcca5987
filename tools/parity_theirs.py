#!/usr/bin/env python3
"""What tools/parity.py has other programs do, each in its own environment.

  python tools/parity_theirs.py make|reload|train|google FOLDER [SHAPE ...]

Only numpy is shared with that side; PyTorch, transformers and TensorFlow are
imported by what needs them.
"""

import json
import pathlib
import sys

import numpy as np

STEPS = 100
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

  outputs = model(**{n: torch.from_numpy(x) for n, x in inputs.items()})
  names = {"last_hidden_state": "sequence", "pooler_output": "pooled",
           "prediction_logits": "mlm", "seq_relationship_logits": "nsp"}
  if "start_logits" in outputs:
    return {"classifier": torch.stack(
        [outputs.start_logits, outputs.end_logits], -1)}
  kind = type(model).__name__
  of_logits = ("mlm" if kind.endswith("ForMaskedLM") else
               "nsp" if kind.endswith("SentencePrediction") else "classifier")
  return {names.get(n, of_logits): x for n, x in outputs.items()
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
    model, loading = auto.from_pretrained(
        path / "exported", output_loading_info=True, **arguments)
    arrays = np.load(path / "arrays.npz")
    with torch.no_grad():
      outputs = torch_outputs(model.eval(), {
          n: arrays[f"in/{n}"].astype(np.int64) for n in (
              "input_ids", "attention_mask", "token_type_ids")})
    model.save_pretrained(path / "again")
    (path / "report.json").write_text(json.dumps({
        "loading": {k: sorted(map(str, v)) for k, v in loading.items()},
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


if __name__ == "__main__":
  work(*sys.argv[1:])
