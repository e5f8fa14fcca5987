"""Atomic writes, and reads of possibly compressed files."""

import gzip
import lzma
import os

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


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.xz"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress])
def test_reading_decompresses_by_content(tmp_path, name, compress):
  (tmp_path / name).write_bytes(compress("\ufeffé\r\n".encode()))
  assert files.read_text(tmp_path / name) == "é\r\n"
  assert files.suffix(tmp_path / name) == ".txt"


def test_reading_an_empty_file_gives_nothing(tmp_path):
  (tmp_path / "a.gz").touch()
  assert files.read_text(tmp_path / "a.gz") == ""
