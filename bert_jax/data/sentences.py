"""Where one sentence ends and the next begins: a small, fast rule."""

import re

# Never a sentence's last word.
_TITLES = frozenset(
    "mr mrs ms dr prof rev hon st ste capt col gen lt sgt maj cmdr adm gov sen "
    "rep pres messrs mme mlle mgr sr fr vs cf viz e.g i.e eg ie al approx resp "
    "aka a.k.a jan feb mar apr jun jul aug sept oct nov dec".split())
# Only before a number: `No. 5`, `vol. 2`, but `He said no. Then he left.`
_NUMBERED = frozenset(
    "no nos fig figs vol vols p pp ch chap sec sect eq eqs art tab ref refs "
    "lib ed".split())
_CLOSERS = "\"'”’»)]"
_OPENERS = "\"'“‘«([¿¡*_"
_END = re.compile(
    rf"[.!?…]+[{re.escape(_CLOSERS)}]*\s+(?=\S)|[。！？]+[」』”’）]*(?=\S)")


def split(text: str) -> list[str]:
  """The sentences of a paragraph; white space around them is dropped."""
  sentences, start = [], 0
  for end in _END.finditer(text):
    if _ends(text, start, end):
      sentences.append(text[start:end.end()].rstrip())
      start = end.end()
  rest = text[start:].strip()
  if rest:
    sentences.append(rest)
  return sentences


def _ends(text: str, start: int, end: re.Match) -> bool:
  if text[end.start()] in "。！？":
    return True
  following = text[end.end()]
  if following in _OPENERS:
    following = text[end.end():end.end() + 8].lstrip(_OPENERS)[:1]
  if following.islower():
    return False
  if text[end.start()] != "." or text.startswith("..", end.start()):
    return True
  # A word is never longer than this; a bounded look keeps long lines linear.
  before = max(start, end.start() - 24)
  words = text[before:end.start()].rsplit(None, 1)
  if not words:
    return True
  word = words[-1].lstrip(_OPENERS)
  if len(word) == 1 and word.isalpha() and word != "I":
    return False  # an initial: `J. R. R. Tolkien`
  if word.isdecimal() and not text[start:end.start()].strip(_OPENERS + " "
                                                           ).strip(word):
    return False  # the number of a list's item: `1. First`
  word = word.lower()
  if following.isdecimal() and word in _NUMBERED:
    return False
  return word not in _TITLES
