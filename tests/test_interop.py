"""Import and export of Hugging Face's and Google's formats, against arrays and
files that tools/parity.py recorded from their own programs."""

import functools
import io
import json
import os
import pathlib
import pickle
import re
import shutil
import sys
import types
import zipfile

import flax.linen as nn
import flax.traverse_util
import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bert_jax as bj
from bert_jax import config
from bert_jax.analysis import describe
from bert_jax.cli.main import main
from bert_jax.checkpoints import reading as checkpoints
from bert_jax.checkpoints.manager import CheckpointManager
from bert_jax.checkpoints.manifest import Manifest, Progress
from bert_jax.checkpoints.reading import resolve_experiment
from bert_jax.config import UserError
from bert_jax.data.sources import TextData
from bert_jax.data.tokenizers.choices import WordPieceTokenizer
from bert_jax.experiment import Experiment
from bert_jax.interop import (
    exporter, hf_checkpoint, hub, importer, parameter_map, tf_checkpoint,
    torch_pickle)
from bert_jax.interop.card_details import CardDetails
from bert_jax.interop.families import FAMILIES
from bert_jax.model.bert import BertConfig
from bert_jax.model.encoder import Encoder
from bert_jax.objectives.base import Objective
from bert_jax.objectives.classification import Classification
from bert_jax.objectives.replaced_tokens import ReplacedTokens
from bert_jax.training.param_paths import leaves
from bert_jax.training.step import TrainState

DATA = pathlib.Path(__file__).parent / "data"


@functools.cache
def frozen(case):
  """What was recorded of a family, "bert", of which "bert/mlm" is a case."""
  family = case.partition("/")[0]
  with np.load(DATA / f"parity_{family}.npz") as arrays:
    return {key: arrays[key] for key in arrays.files}


FROZEN = [path.stem.removeprefix("parity_")
          for path in sorted(DATA.glob("parity_*.npz"))]
CASES = [case for family in FROZEN
         for case in json.loads(str(frozen(family)["configs"]))]


def tensors_of(case):
  """Tensors by name, as transformers saved them."""
  arrays, tensors = frozen(case), {}
  family, head = case.split("/")
  for name in arrays[f"{case}/tensors"]:
    plain = name.removeprefix(f"{FAMILIES[family].inside}.")
    own = f"{case}/tensor/{plain}"
    tensors[str(name)] = arrays[own if own in arrays
                                else f"{family}/tensor/{plain}"]
  return tensors


def config_of(case):
  return json.loads(str(frozen(case)["configs"]))[case]


def directory(path, case, tensors=None, **options):
  path.mkdir(parents=True, exist_ok=True)
  (path / "config.json").write_text(json.dumps(config_of(case) | options))
  save_file(tensors_of(case) if tensors is None else tensors,
            path / "model.safetensors")
  return path


def batch_of(case):
  """The batch of a case, with the choices of an example in one row."""
  ids, mask, types = (frozen(case)[f"{case}/in/{name}"] for name in (
      "input_ids", "attention_mask", "token_type_ids"))
  rows, length = len(ids), ids.shape[-1]
  segments = ids.size // rows // length
  number = np.arange(segments)[None, :, None] + 1
  row = lambda x: np.broadcast_to(
      x, (rows, segments, length)).reshape(rows, -1).astype(np.int32)
  return {"input_ids": row(ids.reshape(rows, segments, length)),
          "token_type_ids": row(types.reshape(rows, segments, length)),
          "position_ids": row(np.arange(length)),
          "example_ids": row(mask.reshape(rows, segments, length) * number),
          "cls_positions": np.tile(np.arange(segments, dtype=np.int32) * length,
                                   (rows, 1)),
          "example_mask": np.ones((rows, 1), np.float32),
          "masked_positions": np.tile(np.arange(length, dtype=np.int32),
                                      (rows, 1))}


class Head(nn.Module):
  objective: Objective

  @nn.compact
  def __call__(self, *arguments):
    return self.objective.logits(*arguments, None)


class Heads(nn.Module):
  """Several heads on one encoder, so that one program serves all."""

  options: BertConfig
  objectives: tuple

  @nn.compact
  def __call__(self, batch):
    encoder = Encoder(self.options, name="encoder")
    sequence = encoder(batch)
    outputs = {"sequence": sequence,
               "pooled": encoder.pool(sequence, batch)[:, 0]}
    for name, objective in self.objectives:
      for part, x in Head(objective, name=name)(
          encoder, sequence, batch).items():
        outputs[f"{name}/{part}"] = x
    return outputs


# Cases that one program serves, as their rows are of one length.
PROGRAMS = [[case for case in CASES if case.startswith(f"{family}/")
             and case.endswith("/choice") == choice]
            for family in FROZEN for choice in (False, True)]


@pytest.mark.parametrize("cases", [*filter(None, PROGRAMS)],
                         ids=lambda cases: cases[-1])
def test_outputs_and_gradients_equal_transformers(tmp_path, cases):
  networks = {case: importer.network(directory(tmp_path / case, case))
           for case in cases}
  # NSP alone has no objective of its own.
  own = {case: case.split("/")[1] for case in cases
         if not case.endswith(("encoder", "pooler", "/nsp"))}
  module = Heads(networks[cases[0]][0].model, tuple(
      (name, networks[case][0].objective) for case, name in own.items()))
  params = {}
  for case, (_, flat) in networks.items():
    params |= {("" if path.startswith("encoder/") else f"{own[case]}/") + path:
               x for path, x in flat.items()
               if path.startswith("encoder/") or case in own}

  def loss(params, batch, weights):
    outputs = module.apply({"params": params}, batch)
    # Regression outputs have no class dimension.
    outputs = {n: x.reshape(weights[n].shape) for n, x in outputs.items()}
    return sum((outputs[n] * w).sum() for n, w in weights.items()), outputs

  differentiate = jax.jit(jax.grad(loss, has_aux=True))
  nest = lambda flat: flax.traverse_util.unflatten_dict(flat, sep="/")
  shapes = jax.eval_shape(lambda p, b: module.apply({"params": p}, b),
                          nest(params), batch_of(cases[0]))
  for case, (architecture, flat) in networks.items():
    arrays, head = frozen(case), own.get(case, "mlm + nsp")
    prefix = f"{case}/weight/"
    their_weights = {key.removeprefix(prefix): w for key, w in arrays.items()
              if key.startswith(prefix)}
    place = lambda n: n if n in ("sequence", "pooled") else f"{head}/{n}"
    weights = {n: np.zeros(x.shape, np.float32) for n, x in shapes.items()}
    weights |= {place(n): w.reshape(weights[place(n)].shape)
                for n, w in their_weights.items()}
    here = params | {k if k.startswith("encoder/") else f"{head}/{k}": v
                     for k, v in flat.items()}
    gradients, outputs = differentiate(nest(here), batch_of(case), weights)
    for name, weight in their_weights.items():
      got = np.asarray(outputs[place(name)]).reshape(weight.shape)
      expected = arrays[f"{case}/out/{name}"]
      np.testing.assert_allclose(got[weight != 0], expected[weight != 0],
                                 rtol=0, atol=1e-5)
    gradients = {path: np.asarray(x) for path, x in leaves(gradients).items()}
    ours = parameter_map.to_theirs(
        {path: gradients[path if path.startswith("encoder/")
                         else f"{head}/{path}"] for path in flat},
        architecture.entries, architecture.model, "")
    compare_gradients(case, ours, architecture)


def compare_gradients(case, ours, architecture):
  tensors, place = tensors_of(case), 0
  theirs = {}
  for name in sorted(tensors):
    size = tensors[name].size
    theirs[name] = frozen(case)[f"{case}/grad"][place:place + size].reshape(
        tensors[name].shape)
    place += size
  theirs = hf_checkpoint.common_tensors(theirs, architecture.family, case)
  positions = "embeddings.position_embeddings.weight"
  if positions in theirs:
    theirs[positions] = theirs[positions][architecture.first_position:]
  assert set(ours) == set(theirs)
  for name, expected in theirs.items():
    # The true gradient of the biases of keys is zero.
    scale = np.linalg.norm(theirs[re.sub(
        r"\b(key|k_lin|attn\.k)\.bias$", r"\1.weight", name)])
    assert np.linalg.norm(ours[name] - expected) <= 1e-5 * scale, name


@pytest.mark.parametrize("case", CASES)
def test_export_inverts_import(tmp_path, case):
  architecture, params = importer.network(directory(tmp_path / "a", case))
  options, tensors = hf_checkpoint.written(
      architecture.family, architecture.model, architecture.objective, params,
      max(0, architecture.first_position - 1))
  expected = tensors_of(case)
  assert set(tensors) == set(expected)
  first = architecture.first_position
  for name, x in tensors.items():
    skipped = first if "position_embeddings" in name else 0
    np.testing.assert_array_equal(x[skipped:], expected[name][skipped:])
  theirs = config_of(case)
  for key in set(options) & set(theirs) - {"pad_token_id"}:
    if theirs[key] is not None:
      assert options[key] == theirs[key], key
  hf_checkpoint.write(tmp_path / "b", options, tensors, {})
  again, same = importer.network(tmp_path / "b")
  assert again == architecture
  jax.tree.map(np.testing.assert_array_equal, params, same)


def test_google_checkpoint_equals_transformers(tmp_path):
  _, expected = importer.network(directory(tmp_path, "bert/mlm + nsp"))
  _, params = importer.network(DATA / "google")
  jax.tree.map(np.testing.assert_array_equal, expected, params)


@pytest.mark.parametrize("change, words", [
    (lambda index, data: (index, data[:9] + b"x" + data[10:]), "checksum of"),
    (lambda index, data: (index, data[:-9]), "cut off"),
    (lambda index, data: (index, b""), "is empty"),
    (lambda index, data: (index[:20] + b"x" + index[21:], data), "checksum"),
    (lambda index, data: (index[:-1] + b"x", data), "no index of a TensorFlow"),
    (lambda index, data: (compressed(index), data), "is compressed (kind 1)")])
def test_damaged_checkpoint_of_google_is_refused(tmp_path, change, words):
  shutil.copytree(DATA / "google", tmp_path / "g")
  paths = [tmp_path / "g" / f"bert_model.ckpt.{end}" for end in (
      "index", "data-00000-of-00001")]
  for path, content in zip(paths, change(*(p.read_bytes() for p in paths))):
    path.write_bytes(content)
  with pytest.raises(UserError) as error:
    importer.network(tmp_path / "g")
  assert words in str(error.value)


def compressed(index):
  """An index whose last table is marked as compressed with snappy."""
  footer = tf_checkpoint._Reader(index[-48:-8])
  _, _, offset, size = (footer.varint() for _ in range(4))
  return index[:offset + size] + b"\1" + index[offset + size + 1:]


@pytest.mark.parametrize("file", ["pytorch_model.bin", "pytorch_1.5.bin"])
def test_pickles_are_read_without_torch(file):
  tensors = torch_pickle.read(DATA / file)
  expected = tensors_of("bert/mlm + nsp")
  assert "torch" not in sys.modules
  for name, x in expected.items():
    np.testing.assert_array_equal(tensors[name], x)


@pytest.mark.parametrize("word, dtype", [
    ("BFloat16", ml_dtypes.bfloat16), ("Half", np.float16),
    ("Double", np.float64)])
def test_pickled_dtypes_are_read(tmp_path, word, dtype):
  expected = {name: x.astype(dtype) for name, x in torch_pickle.read(
      DATA / "pytorch_model.bin").items()}
  path = tmp_path / "pytorch_model.bin"
  with zipfile.ZipFile(DATA / "pytorch_model.bin") as old, zipfile.ZipFile(
      path, "w") as new:
    for name in old.namelist():
      data = old.read(name)
      if name.endswith("data.pkl"):
        data = data.replace(b"FloatStorage", f"{word}Storage".encode())
      elif "/data/" in name:
        data = np.frombuffer(data, np.float32).astype(dtype).tobytes()
      new.writestr(name, data)
  tensors = torch_pickle.read(path)
  assert all(x.dtype == dtype for x in tensors.values())
  jax.tree.map(np.testing.assert_array_equal, expected, tensors)


class Malice:

  def __init__(self, *call):
    self.call = call

  def __reduce__(self):
    return self.call


@pytest.mark.parametrize("function, name", [
    (os.system, "posix.system"), (eval, "builtins.eval"),
    (getattr, "builtins.getattr")])
def test_pickle_that_would_execute_is_refused(tmp_path, function, name):
  witness = tmp_path / "witness"
  content = pickle.dumps({"x": Malice(function, (f"touch {witness}",))}, 2)
  path = tmp_path / "pytorch_model.bin"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", content.replace(
        b"__builtin__", b"builtins"))
  with pytest.raises(UserError) as error:
    torch_pickle.read(path)
  assert name in str(error.value) and not witness.exists()


@pytest.mark.parametrize("content, words", [
    (b"\x80\x02}q\x00.", "not a file of `torch.save`"),
    (None, "without a data.pkl"), (b"<html>", "is damaged"),
    ((DATA / "pytorch_1.5.bin").read_bytes()[:-1], "is cut off")])
def test_files_without_pickled_tensors_are_refused(tmp_path, content, words):
  path = tmp_path / "x.bin"
  if content is None:
    with zipfile.ZipFile(path, "w") as archive:
      archive.writestr("a", "b")
  else:
    path.write_bytes(content)
  with pytest.raises(UserError, match=words):
    torch_pickle.read(path)


def test_tensor_larger_than_its_storage_is_refused():
  with pytest.raises(pickle.UnpicklingError, match="larger"):
    torch_pickle._tensor(np.zeros(6, np.float32), 1, (2, 3), (3, 1))
  with pytest.raises(pickle.UnpicklingError, match="larger"):
    torch_pickle._tensor(np.zeros(6, np.float32), 0, (1 << 40,), (0,))
  strided = torch_pickle._tensor(np.arange(6, dtype=np.float32), 0, (3, 2),
                                 (1, 3))
  np.testing.assert_array_equal(strided, np.arange(6).reshape(2, 3).T)


def test_old_tensor_names_are_accepted(tmp_path):
  tensors = tensors_of("bert/mlm + nsp")
  _, expected = importer.network(directory(tmp_path / "a", "bert/mlm + nsp"))
  old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
      "LayerNorm.bias", "LayerNorm.beta").removeprefix("bert."): x
         for name, x in tensors.items()}
  old["embeddings.position_ids"] = np.arange(10)[None]
  old["cls.predictions.decoder.weight"] = tensors[
      "bert.embeddings.word_embeddings.weight"]
  old["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"]
  # The class name does not drop tensors that are present.
  _, params = importer.network(directory(
      tmp_path / "b", "bert/mlm + nsp", old,
      architectures=["BertForMaskedLM"]))
  jax.tree.map(np.testing.assert_array_equal, expected, params)


@pytest.mark.parametrize("name, shape, words", [
    ("cls.predictions.transform.dense.bias", None,
     "missing: cls.predictions.transform.dense.bias (8,)"),
    ("bert.encoder.layer.7.output.dense.bias", (3,),
     "surplus: encoder.layer.7.output.dense.bias (3,)"),
    ("cls.predictions.decoder.weight", (40, 8),
     "surplus: cls.predictions.decoder.weight (40, 8) (differs from "
     "embeddings.word_embeddings.weight"),
    ("cls.predictions.bias", (4,),
     "cls.predictions.bias: expected (40,), got (4,)")])
def test_mismatched_tensors_are_named(tmp_path, name, shape, words):
  tensors = tensors_of("bert/mlm")
  if shape is None:
    del tensors[name]
  else:
    tensors[name] = np.zeros(shape, np.float32)
  with pytest.raises(UserError) as error:
    importer.network(directory(tmp_path, "bert/mlm", tensors))
  assert words in str(error.value)


@pytest.mark.parametrize("dtype, value, words", [
    (np.float32, np.nan, "not finite in float32:\n  encoder.layer.0.output."
     "dense.bias: 1 of 8"),
    (np.float16, np.inf, "dense.bias: 1 of 8"),
    (np.float64, 1e300, "dense.bias: 1 of 8"),
    (np.int8, 1, "Quantized weights.*\n  encoder.layer.0.output.dense.bias: "
     "int8"),
    (ml_dtypes.float8_e4m3fn, 1, "dense.bias: float8")])
def test_weights_that_are_no_numbers_are_refused(tmp_path, dtype, value, words):
  architecture, _ = importer.network(directory(tmp_path, "bert/mlm"))
  tensors = hf_checkpoint.common_tensors(tensors_of("bert/mlm"),
                                         architecture.family, "x")
  bias = np.zeros(8, dtype)
  bias[3] = value
  tensors["encoder.layer.0.output.dense.bias"] = bias
  with pytest.raises(UserError, match=words):
    hf_checkpoint.params_of(tensors, architecture, "x")


@pytest.mark.parametrize("case, options, words", [
    ("modernbert/mlm", {"layer_types": ["sliding_attention"] * 2},
     "full attention is not in every n-th layer"),
    ("modernbert/mlm", {"rope_parameters": {"full_attention": {
        "rope_type": "yarn"}}}, "only rope_type=default"),
    ("modernbert/mlm", {"decoder_bias": False}, "decoder_bias=False, which"),
    ("modernbert/mlm", {"mlp_bias": True}, "missing: layers.0.mlp.Wi.bias"),
    ("nomic_bert/mlm", {"rope_parameters": {"rope_type": "yarn"}},
     "only rope_type=default"),
    ("albert/mlm", {"inner_group_num": 2}, "inner_group_num=2, which"),
    ("albert/mlm", {"embedding_size": 8}, "without projects_embeddings"),
    ("electra/mlm", {"hidden_act": "relu"}, "always has hidden_act=gelu"),
    ("mpnet/mlm", {"relative_attention_num_buckets": 16},
     "relative_attention_num_buckets=16, which"),
    ("distilbert/mlm", {"architectures": ["DistilBertForMaskLM"]},
     "did you mean 'DistilBertForMaskedLM'"),
    ("nomic_bert/mlm", {"architectures": ["NomicBertForMultipleChoice"]},
     "of NomicBERT there are NomicBertModel, NomicBertForMaskedLM,")])
def test_variants_that_are_not_expressed_are_refused(tmp_path, case, options,
                                                     words):
  with pytest.raises(UserError) as error:
    importer.network(directory(tmp_path, case, **options))
  assert words in str(error.value)


def test_modernbert_of_its_first_release_is_read(tmp_path):
  new, expected = importer.network(directory(tmp_path / "a", "modernbert/mlm"))
  options = config_of("modernbert/mlm")
  for key in "layer_types", "rope_parameters":
    options.pop(key)
  options |= {"global_attn_every_n_layers": 2, "local_rope_theta": 10_000.0,
              "global_rope_theta": 160_000.0}
  path = directory(tmp_path / "b", "modernbert/mlm")
  (path / "config.json").write_text(json.dumps(options))
  old, params = importer.network(path)
  assert old == new
  jax.tree.map(np.testing.assert_array_equal, expected, params)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_family_writes_what_it_reads(name):
  """Also of sizes, words and members that are not its defaults."""
  family = FAMILIES[name]
  model = config.override(family.base, [
      "vocab_size=99", "hidden_size=60", "num_attention_heads=6",
      "num_hidden_layers=4", "hidden_act=relu",
      *(["pooler=mean", "pooler.activation=relu", "pooler.norm=true",
         "pooler.tokens=true"] if name == "modernbert" else []),
      *(["feed_forward.activation=relu"] if name == "nomic_bert" else [])])
  assert not family.lacking(model)
  # How it is computed is free, what is computed is not.
  same = config.override(model, ["attention=flash", "dtype=bfloat16"])
  assert not family.lacking(same)
  other = config.override(model, ["norm=rms", "stack=pattern"])
  assert family.lacking(other)[:1] == ["model.norm=rms"]


@pytest.mark.parametrize("options, words", [
    ({"model_type": "t5"}, "did you mean"),
    ({"model_type": "gpt2"}, "model_type=gpt2 is no encoder that is known"),
    ({"position_embedding_type": "relative_key"}, "relative_key"),
    ({"is_decoder": True}, "is_decoder=True"),
    ({"hidden_act": "gelu_ne"}, "did you mean 'gelu_new'"),
    ({"hidden_size": "wide"}, "hidden_size=wide"),
    ({"architectures": ["BertForTokenClassifier"]},
     "did you mean 'BertForTokenClassification'"),
    ({"problem_type": "ranking"}, "problem_type=ranking"),
    ({"problem_type": "regression"}, "gives 1 numbers, but the classifier has "
     "3"),
    ({"model_type": "roberta", "pad_token_id": None}, "pad_token_id=None"),
    ({"id2label": {"0": "a"}, "problem_type": "single_label_classification"},
     "names 1 labels, but the classifier has 3"),
    ({"id2label": {"1": "a", "2": "b", "3": "c"}}, "1, 2, 3, not from 0 on"),
    ({"id2label": {"0": "a", "1": "b", "2": "a"}}, "has a more than once")])
def test_unsupported_configurations_are_refused(tmp_path, options, words):
  with pytest.raises(UserError) as error:
    importer.network(directory(tmp_path, "bert/class", **options))
  assert words in str(error.value) or words == "did you mean"


def test_sharded_weights_are_read(tmp_path):
  tensors = tensors_of("bert/class")
  path = directory(tmp_path, "bert/class")
  _, expected = importer.network(path)
  (path / "model.safetensors").unlink()
  index = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(tensors)}
  for part in set(index.values()):
    save_file({n: x for n, x in tensors.items() if index[n] == part},
              path / part)
  index_file = path / "model.safetensors.index.json"
  index_file.write_text(json.dumps({"weight_map": index}))
  jax.tree.map(np.testing.assert_array_equal, expected,
               importer.network(path)[1])
  (path / "part-1.safetensors").unlink()
  with pytest.raises(UserError, match="part-1.safetensors is missing"):
    importer.network(path)
  index_file.write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
  with pytest.raises(UserError, match="outside of its directory"):
    importer.network(path)
  index_file.write_text("{}")
  with pytest.raises(UserError, match="no weight_map"):
    importer.network(path)
  (path / "model.safetensors").write_text(
      "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 34\n")
  with pytest.raises(UserError, match="git lfs pull"):
    importer.network(path)


def test_hub_downloads_by_its_own_client(tmp_path, monkeypatch):
  directory(tmp_path / "model", "bert/class")
  asked = []

  def snapshot_download(name, allow_patterns):
    asked.append(allow_patterns)
    return tmp_path / "model"

  client = types.SimpleNamespace(snapshot_download=snapshot_download)
  monkeypatch.setitem(sys.modules, "huggingface_hub", client)
  assert hub.download("google-bert/tiny") == tmp_path / "model"
  # Pickled weights only if there are no others.
  assert len(asked) == 1 and not any("bin" in name for name in asked[0])
  (tmp_path / "model" / "model.safetensors").unlink()
  hub.download("google-bert/tiny")
  assert asked[2] == ["pytorch_model*.bin"]

  def fail(*_, **__):
    raise ConnectionError("no route to host\nand more")

  client.snapshot_download = fail
  with pytest.raises(UserError, match="no route to host[^\n]*$"):
    importer.read("google-bert/tiny")


def test_directories_older_than_transformers_are_read(tmp_path):
  """Google's configuration and vocabulary beside weights for PyTorch."""
  _, expected = importer.network(directory(tmp_path / "a", "bert/mlm + nsp"))
  old = tmp_path / "old"
  old.mkdir()
  shutil.copy(DATA / "google" / "bert_config.json", old)
  shutil.copy(DATA / "pytorch_1.5.bin", old / "pytorch_model.bin")
  jax.tree.map(np.testing.assert_array_equal, expected,
               importer.network(old)[1])


@pytest.mark.parametrize("capital", [False, True])
def test_googles_vocabulary_decides_lowercasing(tmp_path, capital):
  shutil.copytree(DATA / "google", tmp_path / "g")
  vocabulary(tmp_path / "g")
  if capital:
    path = tmp_path / "g" / "vocab.txt"
    path.write_text(path.read_text().replace("w7\n", "W7\n"))
  for given in "", str(tmp_path / "g" / "vocab.txt"):
    tokenizer = importer.read(str(tmp_path / "g"), given).tokenizer
    assert tokenizer.tokens(tokenizer.encode(["w7 W7"])[0]) == (
        ["[UNK]", "W7"] if capital else ["w7", "w7"])


def test_missing_part_is_reported(folder, tmp_path, capsys):
  """A network with only the NSP head has no masked-LM head."""
  source = vocabulary(directory(tmp_path / "hf", "bert/nsp"))
  work = str(tmp_path / "work")
  assert main(["import", str(source), "--workdir", work]) == 0
  assert main(["evaluate", work, f"data.text={folder / 'text.txt'}"]) == 1
  assert "has no mlm, which objective=mlm_nsp needs" in (
      capsys.readouterr().err)


def vocabulary(path):
  words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
  (path / "vocab.txt").write_text("\n".join(
      words + [f"w{i}" for i in range(35)]) + "\n")
  return path


def test_import_embeds_evaluates_and_exports(tmp_path, capsys, monkeypatch):
  source = vocabulary(directory(tmp_path / "hf", "bert/pooler"))
  work, target = str(tmp_path / "work"), tmp_path / "exported"
  assert main(["import", str(source), "--workdir", work]) == 0
  assert "objective=similarity" in capsys.readouterr().out
  saved = checkpoints.read_checkpoint(work)
  resolved = resolve_experiment(Experiment(data=TextData(length=8)),
                     [f"init_from={work}"])
  assert resolved.model == saved.manifest.experiment.model
  text = "w1\x85w2\u2028w3\nw4\rw5\x0cw6\r\n\n" + "w1 " * 9 + "\n"
  monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(
      buffer=io.BytesIO(text.encode())))
  assert main(["embed", work, "w1 w2 w3", "-", "--normalize"]) == 0
  answers = list(map(json.loads, capsys.readouterr().out.splitlines()))
  assert [answer["text"] for answer in answers] == [
      "w1 w2 w3", "w1\x85w2\u2028w3", "w4\rw5\x0cw6", "", "w1 " * 9]
  vectors = np.array([answer["vector"] for answer in answers])
  np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
  assert main(["embed", work, "w1", "--length", "11"]) == 1
  assert "max_position_embeddings=10 positions" in capsys.readouterr().err
  # There is no training file, and none is needed.
  pairs = tmp_path / "pairs.tsv"
  pairs.write_text("sentence\tpair\tlabel\nw1\tw2\t1\nw2\tw3\t0\nw1\tw4\t5\n")
  assert main(["evaluate", work, "data.columns.pair=pair"]) == 1
  assert "data.evaluation: name the file" in capsys.readouterr().err
  assert main(["evaluate", work, "data.columns.pair=pair",
               f"data.evaluation={pairs}"]) == 0
  assert "spearman" in capsys.readouterr().out
  assert main(["export", work, str(target), "--license", "mit"]) == 0
  assert "BertModel" in capsys.readouterr().out
  for name, x in load_file(target / "model.safetensors").items():
    np.testing.assert_array_equal(x, tensors_of("bert/pooler")[name])
  card = (target / "README.md").read_text()
  assert "license: mit" in card and "not recorded" in card
  assert main(["export", work, str(target)]) == 1
  assert "is not empty" in capsys.readouterr().err
  assert main(["import", str(source), "--workdir", work]) == 1
  assert "already holds a run" in capsys.readouterr().err
  read = importer.read(str(target))
  assert read.tokenizer.fingerprint == saved.manifest.tokenizer.fingerprint
  monkeypatch.setattr(hub, "download", lambda name: target)
  come = str(tmp_path / "come")
  for _ in range(2):  # The second time they are there.
    for name, workdir in (str(target), come), ("me/tiny", f"{come}2"):
      again = bj.import_weights(name, workdir)
      jax.tree.map(np.testing.assert_array_equal, again.params, read.params)
    shutil.rmtree(target, ignore_errors=True)
  with pytest.raises(UserError, match="already holds a run"):
    bj.import_weights(str(source), come)


def test_card_states_what_the_run_recorded(tmp_path):
  _, flat = importer.network(directory(tmp_path / "hf", "bert/class"))
  saved = run(tmp_path, flat, Classification(labels=("no", "yes", "maybe")))
  exporter.export(saved, tmp_path / "out", CardDetails(
     data="reviews of 2026", data_license="CC0", limits="One genre."))
  card = (tmp_path / "out" / "README.md").read_text()
  for words in ("BertForSequenceClassification", "reviews of 2026", "CC0",
                "One genre.", "4 of 256 rows of 10 tokens", "8 x cpu",
                "0.50 by the clock", "accuracy", "0.75", "One seed: 0",
                "no, yes, maybe", "text-classification"):
    assert words in card, words
  # 4 steps of 256 rows of 10 tokens, three passes.
  assert "1.024e+04, padding counted" in card


def run(folder, flat, objective, init_from="", **options):
  """A work directory like that of a run of four steps."""
  model = config.override(BertConfig(vocab_size=40), [
      "hidden_size=8", "num_hidden_layers=1", "num_attention_heads=2",
      "intermediate_size=12", "max_position_embeddings=10",
      *(f"{k}={v}" for k, v in options.items())])
  return save(folder, Experiment(
      model=model, objective=objective, data=TextData(length=10),
      init_from=init_from), flat)


def save(folder, experiment, flat):
  tokenizer = WordPieceTokenizer(path=str(
      vocabulary(folder) / "vocab.txt")).build(())
  manifest = Manifest.create(experiment, None, tokenizer, "x")
  params = flax.traverse_util.unflatten_dict(flat, sep="/")
  state = TrainState(np.int32(4), np.int32(0), params, ())
  with CheckpointManager(folder / "run") as checkpoints:
    checkpoints.save(jax.tree.map(jax.numpy.asarray, state), manifest,
                     {"accuracy": 0.75},
                     Progress(seconds=1800.0, devices="8 x cpu"))
  return folder / "run"


def test_networks_unlike_bert_are_not_exported(tmp_path):
  _, flat = importer.network(directory(tmp_path / "hf", "bert/class"))
  workdir = run(tmp_path, flat, Classification(labels=("a", "b", "c")),
                norm_placement="pre", use_bias=False)
  with pytest.raises(UserError, match="model.use_bias=false, "
                     "model.norm_placement=pre: Hugging"):
    exporter.export(workdir, tmp_path / "out")
  assert not (tmp_path / "out").exists()
  architecture, params = importer.network(
      directory(tmp_path / "b", "bert/mlm + nsp"))
  with pytest.raises(UserError, match="nothing like the parameters extra/x"):
    parameter_map.to_theirs(params | {"extra/x": np.zeros(2)},
                            architecture.entries, architecture.model, "BERT")
  with pytest.raises(UserError, match="--family bert"):
    hf_checkpoint.written(FAMILIES["roberta"], architecture.model,
                          architecture.objective, params, 1)


@pytest.mark.parametrize("page, name", [
    ("albert_base", "albert"), ("base", "bert"), ("distilbert", "distilbert"),
    ("electra_small", "electra"), ("modernbert_base", "modernbert")])
def test_page_is_the_architecture_of_its_name(page, name):
  experiment = config.load_page(page).experiment
  model = config.override(experiment.model, ["vocab_size=99"])
  assert not FAMILIES[name].lacking(model)
  heads = {part for part in ("mlm", "nsp", "sop", "replaced")
           if part in leaves_of_heads(experiment)}
  assert any(FAMILIES[name].heads(ending) == heads - {
      *experiment.objective.other_heads} for ending in FAMILIES[name].classes)


def leaves_of_heads(experiment):
  """The heads that a small network of the experiment's kind has."""
  small = config.override(experiment, [
      "model.vocab_size=40", "model.hidden_size=16", "model.embedding_size=4",
      "model.num_attention_heads=4", "model.num_hidden_layers=2",
      "model.intermediate_size=8", "data.length=16"])
  return {path.partition("/")[0] for path in leaves(
      describe.workload(small).state.params)}


@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_generator_and_discriminator_are_exported(tmp_path, kind):
  objective = ReplacedTokens(generator=kind, generator_size=0.5)
  model = config.override(FAMILIES["electra"].base, [
      "vocab_size=40", "hidden_size=16", "num_hidden_layers=2",
      "num_attention_heads=4", "intermediate_size=12",
      "max_position_embeddings=10", "embedding_size=4"])
  experiment = Experiment(model=model, objective=objective,
                          data=TextData(length=10))
  rng = np.random.default_rng(0)
  params = {path: rng.normal(size=x.shape).astype(np.float32)
            for path, x in leaves(describe.workload(
                experiment).state.params).items()}
  saved = save(tmp_path, experiment, params)
  exporter.export(saved, tmp_path / "d")
  architecture, discriminator = importer.network(tmp_path / "d")
  assert architecture.model == model
  assert architecture.objective == ReplacedTokens(generator="random")
  assert set(discriminator) == {path for path in params if path.startswith(
      ("encoder/", "replaced/"))}
  exporter.export(saved, tmp_path / "g", network="generator")
  architecture, generator = importer.network(tmp_path / "g")
  assert architecture.objective.choice_name == "mlm"
  expected = objective.networks(model)["generator"]
  assert architecture.model.hidden_size == expected.hidden_size == 8
  tables = "encoder" if kind == "tied" else "generator"
  for path, x in generator.items():
    here = path if path.startswith("mlm/") else path.replace(
        "encoder", "generator" if "/layers/" in path or "/projection/" in path
        else tables, 1)
    np.testing.assert_array_equal(x, params[here], path)
  with pytest.raises(UserError, match="trains no teacher"):
    exporter.export(saved, tmp_path / "t", network="teacher")


def test_tokenizer_larger_than_the_network_is_refused(tmp_path):
  source = vocabulary(directory(tmp_path, "bert/class"))
  with (source / "vocab.txt").open("a") as file:
    file.write("one\ntoo\nmany\n")
  with pytest.raises(UserError, match="43 pieces, .* only 40 word vectors"):
    importer.read(str(source))
