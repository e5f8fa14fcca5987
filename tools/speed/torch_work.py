"""The same work by PyTorch: transformers' model, with its own loss or with one
of gathered logits, and sentence-transformers."""

import pathlib

import torch
import transformers

from serving import serve
from shape import (
    BATCH, HEADS, INNER, LAYERS, LENGTH, VOCABULARY, WIDTH, rows)

VERSIONS = (f"torch {torch.__version__}, "
            f"transformers {transformers.__version__}")


def training(options):
  model, loss = _model(options["gathered"])
  model.train()
  optimizer = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=0.01)

  def run():
    optimizer.zero_grad()
    loss().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()

  return run, VERSIONS


def inference(options):
  model, loss = _model(options["gathered"])
  model.eval()
  return torch.inference_mode()(loss), VERSIONS


def embed(options):
  import sentence_transformers

  texts = pathlib.Path(options["texts"]).read_text("utf-8").splitlines()
  model = sentence_transformers.SentenceTransformer(
      options["model"], device="cpu")
  return (lambda: model.encode(texts), VERSIONS + ", sentence-transformers "
          + sentence_transformers.__version__)


def _model(gathered):
  """A network and its loss of the rows."""
  torch.manual_seed(0)
  model = transformers.BertForPreTraining(transformers.BertConfig(
      vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS,
      num_attention_heads=HEADS, intermediate_size=INNER))
  batch = {k: torch.from_numpy(v).long() for k, v in rows().items()}
  inputs = {k: batch[k] for k in ("input_ids", "token_type_ids")}
  inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
  positions, labels = batch["masked_positions"], batch["masked_labels"]
  everywhere = torch.full((BATCH, LENGTH), -100).scatter(1, positions, labels)

  def shipped_loss():
    return model(**inputs, labels=everywhere,
                 next_sentence_label=batch["next_sentence"]).loss

  def gathered_loss():
    output = model.bert(**inputs)
    chosen = output.last_hidden_state.gather(
        1, positions[..., None].expand(-1, -1, WIDTH))
    logits, next_sentence = model.cls(chosen, output.pooler_output)
    entropy = torch.nn.functional.cross_entropy
    return (entropy(logits.flatten(0, 1), labels.flatten())
            + entropy(next_sentence, batch["next_sentence"]))

  return model, gathered_loss if gathered else shipped_loss


if __name__ == "__main__":
  serve({"training": training, "inference": inference, "embed": embed})
