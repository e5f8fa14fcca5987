"""PyTorch's training step on the same rows, driven as jax_step.py is.

Hugging Face's BertForPreTraining in the form that is fast: compiled, with
scaled-dot-product attention, bfloat16 autocast over float32 parameters, logits
only where masked, and fused AdamW; the gradients are clipped as the project's.
"""

import json
import pathlib
import sys

import numpy as np

from jax_step import serve


def stepper(case):
  import torch
  import transformers

  torch.manual_seed(0)
  cuda = torch.cuda.is_available()
  device = "cuda" if cuda else "cpu"
  torch.set_float32_matmul_precision("high")
  model = transformers.BertForPreTraining(transformers.BertConfig(
      **case["network"], attn_implementation="sdpa")).to(device).train()
  optimizer = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=0.01,
                                fused=True)
  with np.load(case["rows"]) as arrays:
    rows = {key: torch.from_numpy(x).long().to(device)
            for key, x in arrays.items()}
  width = case["network"]["hidden_size"]
  where = rows["masked_positions"][..., None].expand(-1, -1, width)
  entropy = torch.nn.functional.cross_entropy

  @torch.compile
  def loss():
    with torch.autocast(device, torch.bfloat16):
      # Rows are full: without a mask the fastest kernel is chosen.
      output = model.bert(input_ids=rows["input_ids"],
                          token_type_ids=rows["token_type_ids"])
      logits, next_sentence = model.cls(
          output.last_hidden_state.gather(1, where), output.pooler_output)
    return (entropy(logits.flatten(0, 1).float(),
                    rows["masked_labels"].flatten())
            + entropy(next_sentence.float(), rows["next_sentence"]))

  def run(steps):
    for _ in range(steps):
      optimizer.zero_grad(set_to_none=True)
      value = loss()
      value.backward()
      torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
      optimizer.step()
    return value.item()  # Waits for the device.

  memory = torch.cuda.max_memory_allocated if cuda else lambda: None
  return run, memory, (
      f"torch {torch.__version__}, transformers {transformers.__version__}")


if __name__ == "__main__":
  serve(stepper, json.loads(pathlib.Path(sys.argv[1]).read_text()))
