"""A replayed step as text: what each token is, and what its loss was."""

from collections.abc import Callable, Iterator

import numpy as np
from rich.text import Text

from bert_jax.analysis.replay import Replay

PREDICTED, BOUNDARY, NUMBER = "bold yellow", "bold cyan", "dim"


def text(replayed: Replay, rows: int) -> Text:
  """The step's numbers, and `rows` rows, those of the largest loss first."""
  loss_B = replayed.row_loss_B()
  # What is not finite is the largest.
  order = np.argsort(-np.where(np.isfinite(loss_B), loss_B, np.inf),
                     kind="stable")
  out = _header(replayed, min(rows, len(order)))
  for b in order[:rows].tolist():
    out.append("\n\n")
    out.append(_row(replayed, b, float(loss_B[b])))
  return out


def _header(replayed: Replay, rows: int) -> Text:
  means = replayed.means()
  rate = float(replayed.run.recipe.schedule(replayed.step - 1))
  parts = ", ".join(f"{name} {means[f'{name}_loss']:.6g}"
                    for name in replayed.pairs)
  logged = ("" if replayed.logged is None
            else f"; metrics.jsonl: {replayed.logged:.6g}")
  lines = [
      f"Step {replayed.step} of {replayed.run.experiment.steps}: learning rate "
      f"{rate:.4g}, loss {means['loss']:.6g} ({parts}){logged}",
      f"Parameters: {replayed.origin}",
      f"Rows: {rows} of {len(replayed.batch['row'])}, the largest loss first"]
  if replayed.skipped:
    lines.append("The run rolled back before this step and skipped its batch.")
  if not {"masked_positions", "hidden"}.isdisjoint(replayed.corrupted):
    lines.append("[what it should say -> what the network saw](its loss)")
  if "next_ids" in replayed.corrupted:
    lines.append("[predicted from what stands before it](its loss)"
                 + ("; source => target" if "order" in (
                     replayed.run.experiment.objective.keys) else ""))
  return Text("\n".join(lines))


def _row(replayed: Replay, b: int, loss: float) -> Text:
  rows, size = replayed.run.prepared.train, replayed.run.experiment.batch_size
  epoch, number = divmod((replayed.step - 1) * size + b, len(rows))
  parts = ", ".join(
      f"{name} {total_B[b] / max(weight_B[b], 1e-6):.4f} of {weight_B[b]:g}"
      for name, (total_B, weight_B) in replayed.pairs.items())
  out = Text(f"Row {b} of the batch (epoch {epoch}, row {number}): ")
  out.append(f"loss {loss:.4f}", style="bold")
  out.append(f" ({parts})")
  for example in range(int(replayed.batch["example_ids"][b].max())):
    out.append("\n  ")
    out.append(_label(replayed, b, example))
    places = _tokens if "input_ids" in replayed.batch else _vectors
    for i, token in enumerate(places(replayed, b, example)):
      out.append(" " if i else "")
      out.append(token)
  return out


def _label(replayed: Replay, b: int, example: int) -> Text:
  """What an example is labeled with, and what its parts of the loss are."""
  batch, objective = replayed.batch, replayed.run.experiment.objective
  words = []
  here_L = batch["example_ids"][b] == example + 1
  # An example may have several segments, and has its label at the first.
  example, later = divmod(example, batch["cls_positions"].shape[1]
                          // batch["example_mask"].shape[1])
  if later:
    return Text("or: ", style=BOUNDARY)
  if objective.label_kind is not None:
    words += filter(None, [objective.label_kind.describe_label(
        {key: value[b] for key, value in batch.items()}, example,
        objective.labels)])
  elif "token_type_ids" in batch and batch["token_type_ids"][b, here_L].any():
    answers = (("in order", "swapped") if replayed.run.experiment.data.format.
               pair_labels == "order" else ("next", "random"))
    words.append(answers[batch["next_sentence_labels"][b, example]])
  for name in replayed.pairs:
    loss_E = _one_by_one(replayed, name, "example_mask", b)
    if loss_E is not None:
      words.append(f"({name} {loss_E[example]:.4f})")
  return Text(f"{' '.join(words)}: " if words else "", style=BOUNDARY)


def _one_by_one(replayed: Replay, name: str, weights: str,
                b: int) -> np.ndarray | None:
  """The losses of a row that `weights` weigh; None if it is not their sum."""
  if weights not in replayed.each[name]:
    return None
  loss, weight = replayed.each[name][weights][b], replayed.corrupted[weights][b]
  same = np.allclose((loss * weight).sum(), replayed.pairs[name][0][b],
                     rtol=1e-3, equal_nan=True)
  return loss if same and loss.any() else None


def _tokens(replayed: Replay, b: int, example: int) -> Iterator[Text]:
  """The pieces of an example, what is to be predicted in brackets."""
  vocabulary = replayed.run.prepared.tokenizer.vocabulary
  piece = lambda i: replayed.run.prepared.tokenizer.tokens([int(i)])[0]
  predicted = _predicted(replayed, b)
  objective = replayed.run.experiment.objective
  row, seen = ({key: value[b] for key, value in batch.items()}
               for batch in (replayed.batch, replayed.corrupted))
  if "next_ids" in seen:  # It predicts the row that it sees, not the text's.
    row = seen
  order_L = seen.get("order", np.zeros_like(row["input_ids"]))
  type_before, order_before = 0, int("masked_positions" in seen)
  for l in np.flatnonzero(row["example_ids"] == example + 1):
    original, shown_id = row["input_ids"][l], seen["input_ids"][l]
    if row["token_type_ids"][l] != type_before:
      type_before = row["token_type_ids"][l]
      yield Text("|", style=BOUNDARY)
    if order_L[l] and not order_before and row["position_ids"][l] > 1:
      yield Text("=>", style=BOUNDARY)
    order_before = order_before or order_L[l]
    if l in predicted or original != shown_id:
      token = Text(_shown(piece, original, shown_id, vocabulary.mask_id,
                          order_L[l], "next_ids" in seen), style=PREDICTED)
      if l in predicted and predicted[l] is not None:
        token.append(f"({predicted[l]:.2f})", style=NUMBER)
      yield token
    elif original not in (vocabulary.cls_id, vocabulary.sep_id):
      kind = objective.label_kind
      label = kind and kind.describe_token_label(row, l, objective.labels)
      token = Text(piece(original))
      yield token.append(f"/{label}", style=PREDICTED) if label else token


def _shown(piece: Callable[[int], str], original: int, shown: int, mask: int,
           order: int, is_next: bool) -> str:
  """A predicted token, and what of it the network saw."""
  if is_next:
    return f"[{piece(original)}]"
  if original != shown:
    return (f"[{piece(original)} -> "
            f"{'MASK' if shown == mask else piece(shown)}]")
  # Of a permutation: when it is predicted, and seen from then on.
  return f"[{piece(original)} {f'turn {order // 2}' if order else 'kept'}]"


def _vectors(replayed: Replay, b: int, example: int) -> Iterator[Text]:
  """The vectors of an example, those to be predicted in brackets."""
  hidden_BL = replayed.corrupted.get("hidden")
  losses = [loss_L for name in replayed.pairs if hidden_BL is not None and (
      loss_L := _one_by_one(replayed, name, "hidden", b)) is not None]
  for l in np.flatnonzero(replayed.batch["example_ids"][b] == example + 1)[1:]:
    numbers = " ".join(f"{x:.2g}" for x in replayed.batch["values"][b, l])
    if hidden_BL is None or not hidden_BL[b, l]:
      yield Text(f"({numbers})")
    else:
      token = Text(f"[{numbers} -> MASK]", style=PREDICTED)
      yield token.append(f"({losses[0][l]:.2f})" if losses else "",
                         style=NUMBER)


def _predicted(replayed: Replay, b: int) -> dict[int, float | None]:
  """Positions of a row that are to be predicted, and the loss of each."""
  name = next((name for name in ("masked", "next")
               if f"{name}_weights" in replayed.corrupted), "")
  if not name:
    return {}
  weights_P = replayed.corrupted[f"{name}_weights"][b]
  positions_P = replayed.corrupted.get(f"{name}_positions")
  positions_P = (np.arange(len(weights_P)) if positions_P is None
                 else positions_P[b]) + (name == "next")
  losses = [loss_P for part in replayed.pairs if (loss_P := _one_by_one(
      replayed, part, f"{name}_weights", b)) is not None]
  loss_P = sum(losses).tolist() if losses else [None] * len(positions_P)
  return {l: loss for l, loss, weight in zip(
      positions_P.tolist(), loss_P, weights_P) if weight > 0}
