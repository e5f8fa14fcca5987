"""What runs of a process share."""

import contextvars

from bert_jax.config import override
from bert_jax.experiment import recipe
from bert_jax.training import programs
from tests import tiny
from tests.small_run import pretraining


def test_program_is_made_once_inside_shared(monkeypatch):
  monkeypatch.setattr(programs, "_MOST", 2)
  make = programs.once(lambda key: key)(lambda key: object())

  def check():
    assert make(1) is not make(1)
    with programs.shared():
      one, two = make(1), make(2)
      with programs.shared():
        assert make(1) is one
      make(3)  # What was used last is kept.
      assert make(1) is one and make(2) is not two
      assert make([]) is not make([])  # A key without a hash.
    assert make(1) is not one

  contextvars.Context().run(check)


def test_seeds_share_a_recipe_and_options_do_not(tmp_path):
  (tmp_path / "text.txt").write_text("")
  base = pretraining(tmp_path)
  of = lambda *words: recipe(override(base, words), tiny.VOCABULARY)
  with programs.shared():
    assert of("seed=1", "log_every=3") is of()
    for word in ("objective.masking.rate=.3", "model.use_bias=false",
                 "optimizer.b2=.9", "schedule.learning_rate=1", "steps=9",
                 "microbatches=2", "adapter=lora", "finetuning.frozen=x"):
      assert of(word) is not of()
