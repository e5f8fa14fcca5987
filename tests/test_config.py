"""Choices, overrides and changes: how an experiment is written down."""

import dataclasses
import math
from typing import Literal

import pytest
from hypothesis import given, strategies as st

from bert_jax import config
from bert_jax.config import Choice, UserError
from bert_jax.experiment import Experiment


class Fruit(Choice):
  pass


@dataclasses.dataclass(frozen=True)
class Apple(Fruit):
  weight: float = 1.5
  names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class SourCherryFruit(Fruit):
  stones: int = 1
  leaf: bool = False


@dataclasses.dataclass(frozen=True)
class Plum(SourCherryFruit, name="damson"):
  size: Literal["small", "large"] = "small"


@dataclasses.dataclass(frozen=True)
class Basket:
  fruit: Fruit = Apple()
  second: Fruit = SourCherryFruit()
  limit: int | None = None
  title: str = ""

  def __post_init__(self):
    if self.limit == 3 and self.title != "three":
      raise UserError("a limit of 3 needs the title three")


def test_members_are_named_by_their_classes():
  assert list(Fruit.members()) == ["apple", "sour_cherry", "damson"]


@pytest.mark.parametrize("assignments, expected", [
    (["fruit=damson", "fruit.size=large"], Basket(Plum(size="large"))),
    (["fruit.weight=2", "fruit=apple"], Basket(Apple(2.0))),
    (["fruit.names=a,b c"], Basket(Apple(names=("a", "b c")))),
    (['fruit.names=["a,b"]'], Basket(Apple(names=("a,b",)))),
    (["limit=1e3", "second.leaf=true"],
     Basket(second=SourCherryFruit(leaf=True), limit=1000)),
    (["limit=4", "limit=none", "title=a=b "], Basket(title="a=b ")),
    # Checked once all assignments are applied.
    (["limit=3", "title=three"], Basket(limit=3, title="three")),
])
def test_override_applies_assignments(assignments, expected):
  assert config.override(Basket(), assignments) == expected


@pytest.mark.parametrize("assignment, words", [
    ("frut=apple", ["frut", "did you mean 'fruit'"]),
    ("fruit=aple", ["'apple'", "damson"]),
    ("fruit.wight=1", ["Apple", "'weight'", "names"]),
    ("fruit.weight=heavy", ["fruit.weight=heavy", "float", "1e-4"]),
    ("second.leaf=maybe", ["bool"]),
    ("second.stones=1.5", ["int"]),
    ("limit.x=1", ["limit"]),
    ("title", ["key=value"]),
])
def test_mistakes_are_explained(assignment, words):
  with pytest.raises(UserError) as caught:
    config.override(Basket(), [assignment])
  assert all(word in str(caught.value) for word in words)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
FRUITS = st.one_of(
    st.builds(Apple, st.floats(allow_nan=False), st.lists(
        TEXTS, max_size=3).map(tuple)),
    st.builds(SourCherryFruit, st.integers(), st.booleans()),
    st.builds(Plum, st.integers(), st.booleans(),
              st.sampled_from(["small", "large"])))
BASKETS = st.builds(Basket, FRUITS, FRUITS,
                    st.none() | st.integers().filter(lambda n: n != 3), TEXTS)


@given(BASKETS, BASKETS)
def test_changes_turn_base_into_run(base, run):
  changes = config.changes(base, run)
  assert config.override(base, changes) == run
  assert bool(changes) == (base != run)


@given(BASKETS, BASKETS, BASKETS)
def test_later_assignments_override_earlier_ones(base, run, other):
  first, last = (config.changes(base, other), config.changes(base, run))
  assert config.override(base, first + config.changes(other, run)) == run
  assert config.override(config.override(base, last), last) == run


def test_page_defines_choices_and_is_read_once(tmp_path):
  page = tmp_path / "page.py"
  page.write_text(
      "import dataclasses\n"
      "from bert_jax.model.attention import Attention\n"
      "@dataclasses.dataclass(frozen=True)\n"
      "class OddAttention(Attention):\n  shift: float = -1.0\n"
      "experiment = OddAttention()\n")
  loaded = config.load_page(str(page))
  assert type(loaded.experiment).members()["odd"] is type(loaded.experiment)
  assert config.load_page(str(page)).experiment == loaded.experiment
  config.check_ranges(loaded.experiment)


def test_wrong_page_is_explained(tmp_path):
  with pytest.raises(UserError, match="did you mean 'quickstart'"):
    config.load_page("quikstart")
  (tmp_path / "empty.py").write_text("")
  with pytest.raises(UserError, match="does not bind `experiment`"):
    config.load_page(str(tmp_path / "empty.py"))


@pytest.mark.parametrize("key, valid, wrong", [
    ("objective.masking.mask_fraction", "0.5", ["-0.5", "nan", "1.5"]),
    ("data.held_out_percent", "100", ["-1", "100.5", "nan"]),
    ("data.length", "16", ["0", "-1"]), ("save_minutes", "3", ["-1", "nan"]),
    ("optimizer.b1", "0", ["-0.1", "1", "nan"]),
    ("optimizer.clip_norm", "0.1", ["-1", "inf", "nan"]),
    ("schedule.learning_rate", "1e-3", ["-1e-3", "nan", "inf"]),
    ("layout.fsdp", "1", ["0", "-2"]), ("spike_deviations", "5", ["-1"]),
    ("model.initializer_range", "0", ["-0.02", "nan"])])
def test_numbers_out_of_range_are_refused(key, valid, wrong):
  assert config.override(Experiment(), [f"{key}={valid}"])
  for text in wrong:
    with pytest.raises(UserError, match=f"{key.split('.')[-1]}="):
      config.override(Experiment(), [f"{key}={text}"])


def test_no_option_of_a_built_in_choice_may_be_nan():
  for family in Choice.__subclasses__():
    for member in family.members().values():
      for field in dataclasses.fields(member):
        if isinstance(field.default, float) and member.__module__.startswith(
            "bert_jax."):
          with pytest.raises(UserError):
            config.check_ranges(member(**{field.name: math.nan}))
