#!/usr/bin/env python3
"""Token ids of this project beside those of Hugging Face's `transformers`.

  python tools/token_parity.py --transformers PYTHON --vocabulary vocab.txt \
      --text '../shared/data/**/*'
  python tools/token_parity.py --transformers PYTHON --freeze

PYTHON is the interpreter of an environment that has `transformers`; without
the flag one is made in the cache. What is encoded:

  every line of the files (.gz and .xz are unpacked; of .json every string),
    and what stands between its tabs;
  every code point of Unicode, alone, between letters and after a space;
  several hundred strings that are hard for one reason or another.

With what:

  the vocabulary in several settings, beside `BertTokenizer` as transformers
    makes it of the vocabulary and these settings ("fast"), beside what
    `AutoTokenizer` makes of the files that this project writes ("written"), and
    beside the older implementation in Python ("slow");
  byte-level BPE and SentencePiece, trained here on the first file, beside what
    `AutoTokenizer` makes of the files that are written.

transformers gets `split_special_tokens=True`: no text writes special tokens.
--only LABEL compares those whose label has this in it, as in --only fast.

The slow implementation differs from the fast one, and so from this project:
it drops unassigned and private characters (Google's does not), composes before
it looks at a character (Google's does not), knows a final sigma, and has the
Unicode tables of its Python, where the fast one has those of 2015 and takes
U+2B820 to U+2B91F for letters. Such texts are counted by the reason. Google's
own also splits words of 101 to 200 characters, which are [UNK] to the others.
--freeze rewrites tests/data/tokens.json, with a vocabulary of its own.
"""

import argparse
import base64
import collections
import glob
import io
import json
import pathlib
import subprocess
import sys
import tempfile
import unicodedata

from beside import environment

ROOT = pathlib.Path(__file__).resolve().parents[1]
FROZEN = ROOT / "tests" / "data" / "tokens.json"
LINES_AT_ONCE, SHOWN = 20_000, 3
SETTINGS = {
    "uncased": {}, "cased": {"lowercase": False},
    "uncased with accents": {"strip_accents": False},
    "cased without accents": {"lowercase": False, "strip_accents": True},
    "Chinese in words": {"chinese_characters": False}}


# What the other interpreter runs.


def serve():
  """Loads tokenizers, then answers texts and ids with the ids that differ."""
  import os
  os.environ.update(TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1")
  import transformers
  from transformers.models.bert import tokenization_bert_legacy as legacy

  def fast(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        folder, split_special_tokens=True)
    return lambda texts: tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False,
        return_token_type_ids=False)["input_ids"]

  def slow(folder):
    config = json.loads(
        (pathlib.Path(folder) / "tokenizer_config.json").read_text())
    vocabulary = legacy.load_vocab(pathlib.Path(folder) / "vocab.txt")
    words = legacy.BasicTokenizer(
        config["do_lower_case"], None, config["tokenize_chinese_chars"],
        config["strip_accents"])
    pieces = legacy.WordpieceTokenizer(vocabulary, "[UNK]")
    return lambda texts: [
        [vocabulary[piece] for word in words.tokenize(text)
         for piece in pieces.tokenize(word)] for text in texts]

  loaded = {}
  print(f"transformers {transformers.__version__}, unicodedata "
        f"{unicodedata.unidata_version}", flush=True)
  for line in sys.stdin:
    kind, folder, texts, ids = json.loads(line)
    if kind in FAMILIES:
      FAMILIES[kind](folder, **ids)
      print("[]", flush=True)
      continue
    if (kind, folder) not in loaded:
      loaded[kind, folder] = {"fast": fast, "slow": slow}[kind](folder)
    theirs = loaded[kind, folder](texts)
    print(json.dumps([[i, other] for i, (own, other) in enumerate(
        zip(ids, theirs)) if own != other] if ids else theirs), flush=True)


def unigram(first, last, sample, size):
  """Pieces with their scores, between special ones."""
  import tokenizers
  trained = tokenizers.Tokenizer(tokenizers.models.Unigram())
  trained.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([
      tokenizers.pre_tokenizers.WhitespaceSplit(),
      tokenizers.pre_tokenizers.Metaspace()])
  trained.train_from_iterator(sample, tokenizers.trainers.UnigramTrainer(
      vocab_size=size, show_progress=False, special_tokens=["<unk>"],
      unk_token="<unk>"))
  pieces = json.loads(trained.to_str())["model"]["vocab"][1:]
  return [*((name, 0.0) for name in first), *map(tuple, pieces),
          *((name, 0.0) for name in last)]


def table_of(charsmap):
  import base64
  return {"_spm_precompiled_charsmap": base64.b64decode(charsmap)
          } if charsmap else {}


def make_albert(folder, sample, charsmap=""):
  import transformers
  names = "<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"
  transformers.AlbertTokenizer(
      vocab=unigram(names, (), sample, 400),
      **table_of(charsmap)).save_pretrained(folder)


def make_xlm_roberta(folder, sample, charsmap=""):
  import transformers
  names = "<s>", "<pad>", "</s>", "<unk>"
  transformers.XLMRobertaTokenizer(
      vocab=unigram(names, ("<mask>",), sample, 400),
      **table_of(charsmap)).save_pretrained(folder)


def make_mpnet(folder, pieces):
  import transformers
  names = {"[PAD]": "<pad>", "[CLS]": "<s>", "[SEP]": "</s>",
           "[MASK]": "<mask>"}
  transformers.MPNetTokenizer(vocab={
      names.get(piece, piece): i for i, piece in enumerate(pieces)}
                              ).save_pretrained(folder)


def make_modernbert(folder, pieces, merges):
  import tokenizers
  import transformers
  names = dict(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
               sep_token="[SEP]", mask_token="[MASK]")
  built = tokenizers.Tokenizer(tokenizers.models.BPE(
      {piece: i for i, piece in enumerate(pieces)},
      [tuple(merge.split(" ")) for merge in merges]))
  built.normalizer = tokenizers.normalizers.NFC()
  built.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
      add_prefix_space=False)
  built.decoder = tokenizers.decoders.ByteLevel()
  # Runs of spaces are tokens, which a text may write.
  built.add_tokens([" " * 4, " " * 2, "|||IP_ADDRESS|||"])
  built.add_special_tokens([*names.values()])
  built.post_processor = tokenizers.processors.TemplateProcessing(
      single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]",
      special_tokens=[(name, built.token_to_id(name))
                      for name in ("[CLS]", "[SEP]")])
  transformers.PreTrainedTokenizerFast(
      tokenizer_object=built, **names).save_pretrained(folder)


FAMILIES = {"albert": make_albert, "xlm-roberta": make_xlm_roberta,
            "mpnet": make_mpnet, "modernbert": make_modernbert}


class Other:
  """The other interpreter, and what it said so far."""

  def __init__(self, python: str):
    self._process = subprocess.Popen(
        [python, __file__, "--serve"], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True)
    self.versions = self._process.stdout.readline().strip()

  def ask(self, kind, folder, texts, ids=None):
    """What differs, as [index, its ids]; without `ids` all that it finds."""
    print(json.dumps([kind, str(folder), texts, ids]),
          file=self._process.stdin, flush=True)
    return json.loads(self._process.stdout.readline())


# Texts.


def hard_strings():
  """Strings that tokenizers disagree on, if they disagree on any."""
  letter = unicodedata.lookup
  texts = [
      "", " ", "  two  spaces ", "a\tb\nc\rd", "\ttabs\t\tonly\t",
      "line\r\nend",
      "a\x00b\x07c\x1bd\x7fe\x80f\x85g\x9fh", "\ufffd a\ufffdb", "\ufeffmark",
      "Hello [MASK] world[SEP] [UNK] [CLS] [PAD]", "[mask] [ MASK ] ##ing ##",
      "<s> </s> <pad> <mask> <unk>", "don't (stop) it's 3.14% $5 e-mail @x #y",
      "a_b-c/d\\e|f~g`h^i", "...!?!?;:--,,", "under_score __init__(self)",
      "naïve café résumé Ångström Élan ÀÉÎÕÜ àéîõü ÿ Ÿ", "ﬁne ﬂow ﬀ ﬃ ﬅ",
      "①②③ ⅷ Ⅷ ½ ¾ ² ³ ™ ℃ ㎏ ㍿", "ＦＵＬＬ　ｗｉｄｔｈ！？（１２）", "ｶﾀｶﾅ ﾊﾟ",
      "İstanbul Iğdır ılık IİıiĞ", "Straße STRASSE ẞ ß Fuß",
      "ΣΊΣΥΦΟΣ Σίσυφος ς σ",
      "Ǆ ǅ ǆ ǈ Ǳ ŉ ǰ ΐ", "Łódź Øre Đakovo Ħal æ Æ œ Œ þ ð", "日本語 and 中文。「引用」",
      "漢字かな混じり文カタカナ々〆〇", "한국어 띄어쓰기 각", "가각 각",
      "𠀀𪜀𫝀𫠠 𬺰 丽 豈更 㐀䶵", "Привет МИР ёлка Ёлка йод", "עִבְרִית שלום",
      "العَرَبِيَّة ٱلله لا",
      "\u202bמימין\u202c \u200fמ\u200e", "हिन्दी क्ष นี่ไทย ኢትዮጵያ",
      "👩‍👩‍👧‍👦 👍🏽 🇩🇪 ☺️ ❤️‍🔥 1️⃣",
      "🤗hug🤗",
      "e\u0301 E\u0301 \u0301 a\u0301\u0302\u0303b o\u0308 \u212b \u2126",
      "q\u0307\u0323 q\u0323\u0307 ạ\u0302 \u1ea5",
      "zero\u200bwidth\u200cnon\u200djoiner",
      "soft\u00adhyphen word\u2060joiner \ufeffbom\ufeff",
      "a\u00a0b\u2003c\u2009d\u202fe\u205ff\u3000g",
      "a\u1680b\u180ec\u2028d\u2029e\x0bf\x0cg\x1ch\x1di\x1ej\x1fk",
      "“quotes” ‘single’ «guillemets» – — … † ‡ • ′ ″", "¡hola! ¿qué? ·middle·",
      "€£¥₹₿ ©®℗ §¶ °±×÷¬ ←↑→↓ ∀∃∑√∞≠≤ ░▒▓ ♠♥ ♪♫", "x²+y²=z² 10⁻³ H₂O",
      "http://example.org/a?b=c&d=%20e#f", "C:\\path\\file.txt 192.168.0.1:80",
      "1,234,567.89 1e-5 0x1F 12:34:56 2020-01-02", "\U000e0001\U000e0041tags",
      "\ue000private\U000f0000\U0010fffd",
      "\u0378unassigned\u0379 \U0001ffff \ufdd0",
      "𝐁𝐨𝐥𝐝 𝒮𝒸𝓇𝒾𝓅𝓉 𝕯𝖔 Ⓐ 🄰", "𐐀𐐨 𐓏 𞤀𞤢 Ꭰꭰ Ა ა ꙁ", "\u0345 \u0390 ᾳ ᾼ ᾀ ﬓ",
      "a" * 99, "a" * 100, "a" * 101, "x" * 200, "x" * 201, "é" * 100,
      "e\u0301" * 100, "中" * 120, "." * 150, "ab" * 100 + " short",
      "İ" * 100, "\u200b" * 120 + "z", "a\u0301" * 50 + "b" * 60]
  texts += [f"a{chr(mark)}b {chr(mark)} A{chr(mark)}"
            for mark in [*range(0x300, 0x370, 3), 0x483, 0x591, 0x64b, 0x670,
                         0x93c, 0xe31, 0x20d0, 0x302a, 0x3099, 0xfe00, 0xfe20]]
  texts += [f"x{chr(space)}y {chr(space)}z{chr(space)}"
            for space in [*range(9, 14), *range(28, 33), 0x85, 0xa0, 0x1680,
                          0x180e, *range(0x2000, 0x2010),
                          *range(0x2028, 0x2030), 0x205f,
                          *range(0x2060, 0x2065), 0x3000, 0xfeff, 0xfff9]]
  texts += [f"l{chr(mark)}r {chr(mark)}{chr(mark)}" for mark in
            [*range(33, 48), *range(58, 65), *range(91, 97), *range(123, 127),
             *range(0xa1, 0xc0), 0x37e, 0x387, 0x55a, 0x5be, 0x5f3, 0x60c,
             0x61b, 0x66a, 0x6d4, 0x964, 0xe4f, 0x104a, 0x1360, 0x166d,
             0x169b, 0x17d4,
             0x1800, *range(0x2010, 0x2028), *range(0x2030, 0x2044), 0x207d,
             0x2308, 0x2329, 0x2768, 0x27e6, 0x2983, 0x2cf9, 0x2e00, 0x2e3a,
             *range(0x3001, 0x3004), 0x3008, 0x3030, 0x303d, 0x30a0, 0x30fb,
             0xa4fe, 0xa60d, 0xfe10, 0xfe30, 0xfe63, 0xff01, 0xff3f, 0xff5b,
             0x10100, 0x1039f, 0x10a50, 0x12470, 0x16a6e, 0x1bc9f, 0x1e95e]]
  texts += [f"{chr(c)}n{chr(c).lower()} un{chr(c)}" for c in
            [*range(0xc0, 0x100, 2), *range(0x100, 0x180, 5),
             *range(0x1e00, 0x1f00, 17), *range(0x391, 0x3d0, 7),
             *range(0x410, 0x450, 7), *range(0x1f00, 0x2000, 23)]]
  edges = [0x33ff, 0x3400, 0x4dbf, 0x4dc0, 0x4dff, 0x4e00, 0x9fff, 0xa000,
           0xf8ff, 0xf900, 0xfaff, 0xfb00, 0x1ffff, 0x20000, 0x2a6df, 0x2a6e0,
           0x2a700, 0x2b73f, 0x2b740, 0x2b81f, 0x2b820, 0x2ceaf, 0x2ceb0,
           0x2f7ff, 0x2f800, 0x2fa1f, 0x30000, 0x3041, 0x30a1, 0x3105, 0xac00]
  texts += [f"w{chr(c)}w{chr(c)}{chr(c)}" for c in edges]
  texts += [f"{letter('ZERO WIDTH JOINER').join(pair)} {pair}" for pair in (
      "ab", "क्ष"[:2], "👩🔬", "لا")]
  return list(dict.fromkeys(texts))


def characters():
  """Strings around every code point, but for halves of surrogate pairs."""
  for code in (*range(0xd800), *range(0xe000, 0x110000)):
    yield f"a{chr(code)}b {chr(code)}"


def texts_of(path):
  """Every line of a file, and what stands between its tabs."""
  from bert_jax import files
  with files.reading(path) as file:
    lines = io.TextIOWrapper(file, "utf-8", newline="\n")
    if path.suffix == ".json":
      yield from strings_of(json.load(lines))
      return
    for line in lines:
      line = line.removesuffix("\n")
      yield line
      if "\t" in line:
        yield from line.split("\t")


def strings_of(value):
  """Every string in a JSON value."""
  if isinstance(value, str):
    yield value
  elif isinstance(value, (list, dict)):
    for part in (value.values() if isinstance(value, dict) else value):
      yield from strings_of(part)


def batches(texts):
  batch = []
  for text in texts:
    batch.append(text)
    if len(batch) == LINES_AT_ONCE:
      yield batch
      batch = []
  if batch:
    yield batch


# Tokenizers.


def byte_level(texts, size):
  """A byte-level BPE in RoBERTa's order of ids, trained on texts."""
  import tokenizers

  from bert_jax.data.tokenizers.byte_bpe import ByteLevel
  raw = tokenizers.Tokenizer(tokenizers.models.BPE())
  raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
      add_prefix_space=False)
  raw.train_from_iterator(texts, tokenizers.trainers.BpeTrainer(
      vocab_size=size, special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
      initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
      show_progress=False))
  model = json.loads(raw.to_str())["model"]
  return ByteLevel([*sorted(model["vocab"], key=model["vocab"].get), "<mask>"],
                   [" ".join(pair) for pair in model["merges"]])


def write(folder, files, model_type):
  folder.mkdir(parents=True)
  for name, content in files.items():
    (folder / name).write_bytes(content)
  (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
  return folder


def bert_folder(folder, loaded, choice):
  """A vocabulary and options, and no tokenizer.json, so that transformers
  makes all else itself."""
  return write(folder, {
      "vocab.txt": loaded.file(),
      "tokenizer_config.json": json.dumps({
          "do_lower_case": choice.lowercase,
          "strip_accents": choice.strip_accents,
          "tokenize_chinese_chars": choice.chinese_characters}).encode()},
      "bert")


def contenders(folder, vocabulary, sample):
  """(label, our tokenizer, kind and folder of the other one) triples."""
  from bert_jax.data.tokenizers.choices import (
      SentencePieceTokenizer, WordPieceTokenizer)
  for name, options in SETTINGS.items():
    choice = WordPieceTokenizer(path=str(vocabulary), **options)
    loaded = choice.build([])
    made = bert_folder(folder / name / "made", loaded, choice)
    yield f"WordPiece, {name}: fast", loaded, "fast", made
    yield f"WordPiece, {name}: slow", loaded, "slow", made
    yield f"WordPiece, {name}: written", loaded, "fast", write(
        folder / name / "written", loaded.directory(512), "bert")
  for name, loaded in {
      "byte-level BPE": byte_level(sample, 8192),
      "SentencePiece BPE": SentencePieceTokenizer().build(sample),
      "SentencePiece BPE, lower case, no bytes": SentencePieceTokenizer(
          lowercase=True, byte_fallback=False).build(sample),
      "SentencePiece unigram": SentencePieceTokenizer(
          model_type="unigram").build(sample)}.items():
    kind = "roberta" if name.startswith("byte") else "bert"
    yield f"{name}: written", loaded, "fast", write(
        folder / name, loaded.directory(512), kind)


def compare(args, other):
  """A table of texts, ids and differences; True if there are none."""
  files = [pathlib.Path(match) for spec in args.text
           for match in sorted(glob.glob(spec, recursive=True))]
  files = [path for path in files if path.is_file() and path.suffix not in (
      ".npz", ".md") and path != args.vocabulary]
  if not files:
    raise SystemExit(f"no files: {' '.join(args.text)}")
  sample = [line for _, line in zip(range(30_000), texts_of(files[0]))]
  sources = {"hard strings": hard_strings, "code points": characters} | {
      str(path): lambda path=path: texts_of(path) for path in files}
  print("| tokenizer | texts | ids | texts that differ |\n|---|---:|---:|---:|")
  equal = True
  with tempfile.TemporaryDirectory() as folder:
    for label, loaded, kind, made in contenders(
        pathlib.Path(folder), args.vocabulary, sample):
      if args.only not in label:
        continue
      texts, ids, shown = 0, 0, []
      for read in sources.values():
        for batch in batches(read()):
          own = loaded.encode(batch)
          texts, ids = texts + len(batch), ids + sum(map(len, own))
          shown += [(batch[i], loaded.tokens(own[i]), loaded.tokens(theirs))
                    for i, theirs in other.ask(kind, made, batch, own)]
      print(f"| {label} | {texts} | {ids} | {len(shown)} |", flush=True)
      if kind == "slow":
        print("  ", dict(collections.Counter(
            reason(text) for text, _, _ in shown)), flush=True)
        shown = [each for each in shown if not reason(each[0])]
      equal &= not shown
      for text, own, theirs in shown[:SHOWN] + shown[SHOWN:][-SHOWN:]:
        print(f"  {text[:60]!r}\n    {own[:12]}\n    {theirs[:12]}")
  print(f"\n{len(files)} files; {other.versions}.")
  return equal


def reason(text):
  """Why the slow implementation may see a text otherwise; "" if it may not."""
  kinds = {unicodedata.category(c) for c in text}
  if kinds & {"Cn", "Co"}:
    return "unassigned or private"
  if unicodedata.normalize("NFC", text) != text:
    return "composed first"
  if "Σ" in text:
    return "final sigma"
  older = unicodedata.ucd_3_2_0.category
  if any(older(c) != unicodedata.category(c) or 0x2b820 <= ord(c) < 0x2b920
         for c in text):
    return "other Unicode tables"
  return ""


# What the tests know.


def freeze(other):
  """Writes hard strings with ids of transformers, and the vocabularies."""
  from bert_jax.data.text import documents
  from bert_jax.data.tokenizers.choices import WordPieceTokenizer
  from bert_jax.data.tokenizers.wordpiece import WordPiece
  texts = hard_strings()
  pairs = zip(documents.read("embedded"), range(2000))
  sample = [text for document, _ in pairs for text in document.sentences]
  letters = sorted({c for text in texts[:75] for form in (
      text, unicodedata.normalize("NFD", text.lower())) for c in form
                    if c.isprintable() and not c.isspace()})
  pieces = WordPieceTokenizer(vocab_size=400).build(sample)._vocabulary
  pieces = list(dict.fromkeys(
      [*pieces, *letters, *(f"##{c}" for c in letters)]))
  frozen = {"texts": texts, "vocabulary": pieces, "wordpiece": {}}
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    for name, options in SETTINGS.items():
      choice = WordPieceTokenizer(**options)
      made = bert_folder(folder / name, WordPiece(pieces, choice._text()),
                         choice)
      frozen["wordpiece"][name] = {
          "options": options, "ids": other.ask("fast", made, texts)}
    loaded = byte_level(sample, 500)
    frozen["byte_level"] = {
        "vocabulary": loaded._vocabulary, "merges": loaded._merges,
        "ids": other.ask("fast", write(
            folder / "bytes", loaded.directory(), "roberta"), texts)}
  freeze_families(other, sample, pieces, loaded, texts)
  FROZEN.parent.mkdir(exist_ok=True)
  FROZEN.write_text(json.dumps(frozen, separators=(",", ":")) + "\n")
  print(f"{FROZEN}: {len(texts)} texts, {FROZEN.stat().st_size} bytes; "
        f"{other.versions}")


def freeze_families(other, sample, pieces, loaded, texts):
  """Tokenizers as other families save them, with the ids of their classes."""
  import sentencepiece
  from bert_jax.data.tokenizers import hf_directory
  normalized = sentencepiece.SentencePieceNormalizer(rule_name="nmt_nfkc")
  charsmap = base64.b64encode(
      sentencepiece_spec(normalized).precompiled_charsmap).decode()
  made = {"mpnet": {"pieces": pieces}, "modernbert": {
      "pieces": loaded._vocabulary, "merges": loaded._merges}}
  for name in "albert", "xlm-roberta":
    made[name] = {"sample": sample}
    made[f"{name} with its table of characters"] = {
        "sample": sample, "charsmap": charsmap}
  frozen = {}
  for label, options in made.items():
    with tempfile.TemporaryDirectory() as folder:
      other.ask(label.partition(" ")[0], folder, [], options)
      ids = other.ask("fast", folder, texts)
      own = hf_directory.from_directory(folder).encode(texts)
      different = [text for text, a, b in zip(texts, own, ids) if a != b]
      print(f"{label}: {len(different)} of {len(texts)} hard strings differ",
            *map(repr, different[:SHOWN]))
      if "charsmap" not in options:  # Which is large.
        frozen[label] = {"ids": ids, "files": {
            path.name: json.loads(path.read_text())
            for path in sorted(pathlib.Path(folder).glob("*.json"))}}
  path = FROZEN.with_name("tokens_of_families.json")
  path.write_text(json.dumps(frozen, separators=(",", ":")) + "\n")
  print(f"{path}: {path.stat().st_size} bytes")


def sentencepiece_spec(normalizer):
  from sentencepiece import sentencepiece_model_pb2 as pb2
  return pb2.ModelProto.FromString(
      normalizer.serialized_model_proto()).normalizer_spec


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--transformers", metavar="PYTHON")
  parser.add_argument("--vocabulary", type=pathlib.Path)
  parser.add_argument("--text", nargs="+", default=[])
  parser.add_argument("--only", metavar="LABEL", default="")
  parser.add_argument("--freeze", action="store_true")
  parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.serve:
    return serve()
  sys.path.insert(0, str(ROOT))
  other = Other(args.transformers or environment(
      "transformers_alone", ["transformers"]))
  if args.freeze:
    return freeze(other)
  if not args.vocabulary or not args.text:
    parser.error("give --vocabulary and --text, or --freeze")
  return sys.exit(not compare(args, other))


if __name__ == "__main__":
  main()
