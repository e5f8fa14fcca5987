#!/usr/bin/env python3
"""What tools/parity.py has other programs do, each in its own environment.

  python tools/parity_theirs.py make|reload|train|google FOLDER FAMILY,... \
      [SHAPE ...]

Only numpy is shared with that side; PyTorch, transformers and TensorFlow are
imported by what needs them.
"""

import dataclasses
import inspect
import json
import pathlib
import shutil
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
# Of BERT-base, with the masked-LM head alone.
REAL = {"12 x 768": dict(
    num_hidden_layers=12, hidden_size=768, num_attention_heads=12,
    intermediate_size=3072, hidden_act="gelu")}
FROZEN = dict(hidden_size=8, num_attention_heads=2,
              intermediate_size=12, hidden_act="gelu")
# Of each head: the class's ending, and options of its configuration.
HEADS = {
    "encoder": ("Model", {}),
    "pooler": ("Model", {}),
    "mlm + nsp": ("ForPreTraining", {}),
    "mlm": ("ForMaskedLM", {}),
    "mlm + sop": ("ForPreTraining", {}),
    "replaced": ("ForPreTraining", {}),
    "nsp": ("ForNextSentencePrediction", {}),
    "class": ("ForSequenceClassification", dict(num_labels=3)),
    "number": ("ForSequenceClassification", dict(
        num_labels=1, problem_type="regression")),
    "classes": ("ForSequenceClassification", dict(
        num_labels=4, problem_type="multi_label_classification")),
    "tags": ("ForTokenClassification", dict(num_labels=5)),
    "span": ("ForQuestionAnswering", {}),
    "choice": ("ForMultipleChoice", {})}


@dataclasses.dataclass(frozen=True)
class Theirs:
  """A family of transformers.

  Attributes:
    prefix: of its classes.
    inside: begins the names of the encoder's tensors in a class with a head.
    without: heads that it has no class for.
    keys: its own names of the options in SHAPES.
    options: further ones.
    first: the first position of a token.
    pad: id of padding.
    typed: whether tokens have types.
    pooler: whether the encoder can have one.
    mlm_act: the activation of its masked-LM head, which is no option.
    layers: of the small network that is frozen.
    frozen: its heads; None: all but those that differ in labels alone.
  """

  prefix: str
  inside: str
  without: tuple[str, ...] = ("mlm + nsp", "nsp", "mlm + sop", "replaced")
  keys: dict = dataclasses.field(default_factory=dict)
  options: dict = dataclasses.field(default_factory=dict)
  first: int = 0
  pad: int = 0
  typed: bool = False
  pooler: bool = True
  mlm_act: str | None = None
  layers: int = 2
  frozen: tuple[str, ...] | None = None

  def heads(self, shape=""):
    if shape in REAL:
      return ["mlm"]
    left_out = (*self.without, *(() if self.pooler else ("pooler",)))
    some = HEADS if shape != "frozen" else self.frozen or [
        head for head in HEADS if head not in ("number", "classes")]
    return [head for head in some if head not in left_out]


_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_PAIRED = {**_DROPOUT, "type_vocab_size": 2}
_ROBERTA = dict(options={**_DROPOUT, "type_vocab_size": 1}, first=2, pad=1,
                mlm_act="gelu")
FAMILIES = {
    "bert": Theirs("Bert", "bert.", ("mlm + sop", "replaced"),
                   options=_PAIRED, typed=True, layers=1,
                   frozen=tuple(HEADS)),
    "roberta": Theirs("Roberta", "roberta.", **_ROBERTA, layers=1,
                      frozen=tuple(HEADS)),
    "xlm-roberta": Theirs("XLMRoberta", "roberta.", **_ROBERTA,
                          frozen=("mlm", "class")),
    "distilbert": Theirs("DistilBert", "distilbert.", keys={
        "hidden_size": "dim", "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads", "intermediate_size": "hidden_dim",
        "hidden_act": "activation", "layer_norm_eps": None}, options={
            "dropout": 0.0, "attention_dropout": 0.0, "qa_dropout": 0.0,
            "seq_classif_dropout": 0.0}, pooler=False),
    "electra": Theirs("Electra", "electra.", (
        "mlm + nsp", "nsp", "mlm + sop"), options={
        **_PAIRED, "embedding_size": 6}, typed=True, pooler=False,
                      mlm_act="gelu"),
    "albert": Theirs("Albert", "albert.", (
        "mlm + nsp", "nsp", "replaced"), options={
        **_PAIRED, "embedding_size": 6, "classifier_dropout_prob": 0.0},
                     typed=True),
    "mpnet": Theirs("MPNet", "mpnet.", options=_DROPOUT, first=2, pad=1,
                    mlm_act="gelu"),
    "modernbert": Theirs("ModernBert", "model.", keys={
        "hidden_act": "hidden_activation", "layer_norm_eps": "norm_eps"},
                         options={
        "global_attn_every_n_layers": 2, "local_attention": 4,
        "classifier_pooling": "mean", "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
                         pooler=False),
    "nomic_bert": Theirs("NomicBert", "nomic_bert.", (
        "mlm + nsp", "nsp", "mlm + sop", "replaced", "span", "choice"),
                         options=_PAIRED, typed=True)}


def cases(shapes, families=tuple(FAMILIES)):
  for shape in shapes:
    for family in families:
      for head in FAMILIES[family].heads(shape):
        yield shape, family, head


def torch_worker(folder, shapes, families, vocabulary, length):
  """Writes a directory for each case: the network, inputs, outputs, gradients.
  """
  import torch
  import transformers

  transformers.logging.set_verbosity_error()
  for number, (shape, family, head) in enumerate(cases(shapes, families)):
    model = torch_model(family, head, vocabulary, length, shapes[shape])
    path = folder / shape / family / head
    model.save_pretrained(path)
    if head in ("mlm + nsp", "class", "span") and family == "bert":
      np.savez(path / "state.npz", **{
          n: x.numpy() for n, x in model.state_dict().items()})
    if head == "mlm + nsp":
      torch.save(model.state_dict(), path / "state.bin")
      torch.save(model.state_dict(), path / "old.bin",  # As before 1.6.
                 _use_new_zipfile_serialization=False)
    rng = np.random.default_rng(number)
    inputs = make_inputs(rng, family, head, vocabulary, length)
    outputs = torch_outputs(model, inputs)
    weights = {}
    for name, output in outputs.items():
      weight = rng.normal(size=output.shape).astype(np.float32)
      if output.shape[:2] == inputs["attention_mask"].shape:
        mask = inputs["attention_mask"]  # Not of padding.
        weight *= mask.reshape(*mask.shape, *[1] * (weight.ndim - mask.ndim))
      weights[name] = weight / np.count_nonzero(weight)
    sum((outputs[n] * torch.from_numpy(w)).sum()
        for n, w in weights.items()).backward()
    arrays = {f"in/{n}": x.astype(np.int32) for n, x in inputs.items()}
    arrays |= {f"out/{n}": x.detach().numpy() for n, x in outputs.items()}
    arrays |= {f"weight/{n}": x for n, x in weights.items()}
    arrays |= {f"grad/{n}": x for n, x in gradients(model, path).items()}
    np.savez(path / "arrays.npz", **arrays)
def gradients(model, path):
  """By the names that tensors have when they are saved; they replace the
  parameters."""
  import torch
  from safetensors.numpy import load_file

  with torch.no_grad():
    for x in model.parameters():
      x.copy_(torch.zeros_like(x) if x.grad is None else x.grad)
  model.save_pretrained(path / "gradients")
  tensors = load_file(path / "gradients" / "model.safetensors")
  shutil.rmtree(path / "gradients")
  return tensors


def torch_model(family, head, vocabulary, length, shape):
  """A network whose every parameter is drawn."""
  import torch
  import transformers

  theirs = FAMILIES[family]
  ending, more = HEADS[head]
  options = {"num_hidden_layers": theirs.layers, **shape}
  if theirs.mlm_act and head == "mlm":
    options["hidden_act"] = theirs.mlm_act
  options = {theirs.keys.get(n, n): x for n, x in options.items()}
  options.pop(None, None)
  options |= {**theirs.options, **more}
  arguments = pooling(family, head)
  config = getattr(transformers, f"{theirs.prefix}Config")(
      vocab_size=vocabulary, max_position_embeddings=length + theirs.first,
      **options)
  model = getattr(transformers, f"{theirs.prefix}{ending}")(
      config, **arguments).eval()
  # Wide networks that are drawn from so far would not be smooth.
  deviation = 0.1 if shape["hidden_size"] < 768 else 0.02
  # The same for every head, so that heads lie on the same encoder.
  torch.manual_seed(theirs.first)
  for path, x in model.named_parameters():
    torch.nn.init.normal_(x, std=deviation if x.ndim > 1 else 0.05)
    if x.ndim == 1 and path.endswith("weight"):  # Of a norm.
      torch.nn.init.normal_(x, 1.0, 0.1)
  return model


def pooling(family, head):
  """Whether a bare encoder has a pooler, as its class is asked."""
  if head not in ("encoder", "pooler") or not FAMILIES[family].pooler:
    return {}
  return {"add_pooling_layer": head == "pooler"}


def make_inputs(rng, family, head, vocabulary, length):
  """Rows that end in padding, as numpy arrays of int64."""
  shape = (2, CHOICES, length) if head == "choice" else (ROWS, length)
  lengths = rng.integers(length // 3, length + 1, shape[:-1])
  lengths[0] = length
  mask = np.arange(length) < lengths[..., None]
  pad, typed = FAMILIES[family].pad, FAMILIES[family].typed
  ids = np.where(mask, rng.integers(5, vocabulary, shape), pad)
  types = mask & (np.arange(length) >= lengths[..., None] // 2) & typed
  return {"input_ids": ids, "attention_mask": mask.astype(np.int64),
          "token_type_ids": types.astype(np.int64)}


def torch_outputs(model, inputs):
  import torch

  known = inspect.signature(model.forward).parameters
  outputs = model(**{n: torch.from_numpy(x) for n, x in inputs.items()
                     if n in known})
  names = {"last_hidden_state": "sequence", "pooler_output": "pooled",
           "prediction_logits": "mlm", "seq_relationship_logits": "nsp",
           "sop_logits": "sop"}
  if "start_logits" in outputs:
    return {"classifier": torch.stack(
        [outputs.start_logits, outputs.end_logits], -1)}
  kind = type(model).__name__
  endings = {"ForMaskedLM": "mlm", "SentencePrediction": "nsp",
             "ElectraForPreTraining": "replaced"}
  of_logits = next((name for ending, name in endings.items()
                    if kind.endswith(ending)), "classifier")
  return {names.get(n, of_logits): x for n, x in outputs.items()
          if x is not None}


def torch_reload(folder, shapes, families):
  """Loads exported networks as users do, and saves what was loaded."""
  import torch
  import transformers

  transformers.logging.set_verbosity_error()
  for shape, family, head in cases(shapes, families):
    path = folder / shape / family / head
    ending = HEADS[head][0]
    auto = getattr(transformers, f"Auto{'Model' if ending == 'Model' else ''}"
                   f"{'' if ending == 'Model' else 'Model' + ending}")
    arguments = pooling(family, head)
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


def work(worker, folder, families, *shapes):
  folder, families = pathlib.Path(folder), families.split(",")
  frozen = shapes == ("frozen",)
  chosen = {name: FROZEN if frozen else {**SHAPES, **REAL}[name]
            for name in shapes}
  match worker:
    case "make":
      torch_worker(folder, chosen, families, *((40, 10) if frozen else (
          VOCABULARY, LENGTH)))
    case "reload":
      torch_reload(folder, chosen, families)
    case "train":
      torch_train(folder)
    case "google":
      tensorflow_worker(folder, chosen)


if __name__ == "__main__":
  work(*sys.argv[1:])
