"""Atomic writes, and reads of possibly compressed files."""

import bz2
import gzip
import lzma
import os
import random

import pyarrow
import pytest

from bert_jax import files
from bert_jax.config import UserError


def test_replacing_keeps_the_old_file_on_failure(tmp_path):
  path = tmp_path / "a.txt"
  files.write_text(path, "old\r\n")
  with pytest.raises(KeyError), files.replacing(path) as file:
    file.write(b"half of the new")
    file.flush()
    raise KeyError
  assert path.read_bytes() == b"old\r\n"
  assert list(tmp_path.iterdir()) == [path]


def test_replacing_syncs_before_it_renames(tmp_path, monkeypatch):
  path, sizes = tmp_path / "a", []
  monkeypatch.setattr(os, "fsync", lambda number: sizes.append(
      (os.fstat(number).st_size, path.exists())))
  files.write_bytes(path, b"all")
  assert sizes == [(3, False)] and path.read_bytes() == b"all"


def test_replacing_explains_unwritable_paths(tmp_path):
  (tmp_path / "folder" / "inside").mkdir(parents=True)
  with pytest.raises(UserError, match="folder cannot be written: Is a dir"):
    files.write_text(tmp_path / "folder", "text")
  assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def zstd(data):
  return pyarrow.compress(data, codec="zstd", asbytes=True)


COMPRESSIONS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress,
                ".bz2": bz2.compress, ".zst": zstd}


@pytest.mark.parametrize("ending", COMPRESSIONS)
@pytest.mark.parametrize("compress", COMPRESSIONS.values())
def test_reading_decompresses_by_content(tmp_path, ending, compress):
  path = tmp_path / f"a.txt{ending}"
  path.write_bytes(compress("\ufeffé\r\n".encode()))
  assert files.read_text(path) == "é\r\n"
  assert files.suffix(path) == ".txt"


TEXT = random.Random(0).randbytes(80_000).hex()


@pytest.mark.parametrize("ending", list(COMPRESSIONS)[1:])
def test_reading_takes_every_stream_or_reports_damage(tmp_path, ending):
  path = tmp_path / f"a.txt{ending}"
  one, two = map(COMPRESSIONS[ending], (TEXT.encode(), b"the second"))
  path.write_bytes(one + two)
  assert files.read_text(path) == TEXT + "the second"
  for damaged in (one[:-1], one[:1000], one + two[:-1], one + two[:9],
                  one + b"left over", one + b"X" + two[1:]):
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=f"{path} is damaged or incomplete: "):
      files.read_text(path)


@pytest.mark.parametrize("zeros", [4, 1 << 17])
def test_reading_skips_the_padding_between_xz_streams(tmp_path, zeros):
  one, two = map(lzma.compress, (b"one", b"two"))
  padding = bytes(zeros)
  (tmp_path / "a").write_bytes(one + padding + two + padding)
  assert files.read_text(tmp_path / "a") == "onetwo"


@pytest.mark.parametrize("compress", COMPRESSIONS.values())
def test_reading_takes_all_of_a_pipe(compress):
  reader, writer = os.pipe()
  with open(writer, "wb") as file:
    file.write(compress(b"words " * 2000))
  assert files.read_text(f"/dev/fd/{reader}") == "words " * 2000
  os.close(reader)


def test_reading_an_empty_file_gives_nothing(tmp_path):
  (tmp_path / "a.gz").touch()
  assert files.read_text(tmp_path / "a.gz") == ""
