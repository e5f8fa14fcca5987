"""`bert-jax push`, against a stand-in of Hugging Face's hub on this machine."""

import base64
import http.server
import json
import os
import pathlib
import re
import shutil
import threading

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars

from bert_jax.checkpoints.reading import read_checkpoint
from bert_jax.cli.main import main
from bert_jax.config import UserError
from bert_jax.interop import exporter, hub, importer
from bert_jax.interop.card_details import check_license
from bert_jax.objectives.classification import Classification
from bert_jax.studies.protocols import scores
from bert_jax.studies.protocols.scores import Score
from tests.test_interop import directory, run, vocabulary

NAME = "me/tiny-bert"
BASE = "google-bert/tiny"
OPTIONS = ["--license", "Apache-2.0", "--language", "en", "--data", "reviews",
           "--datasets", "me/reviews"]


class StandIn(http.server.ThreadingHTTPServer):
  """Of the hub, what its client asks to make a model and to commit to it.

  Attributes:
    asked: the first words of each request, in order.
    made: what each repository was asked to be made of, by name.
    large: the contents of large files, by their digests.
    commits: the files of each commit, with the branch.
    refusal: the status of every answer, with words; None: all is well.
  """

  daemon_threads = True

  def __init__(self):
    super().__init__(("127.0.0.1", 0), Answers)
    self.asked, self.made, self.large, self.commits = [], {}, {}, []
    self.refusal = None
    self.address = f"http://127.0.0.1:{self.server_port}"


class Answers(http.server.BaseHTTPRequestHandler):
  """One request."""

  def log_message(self, *_):
    pass

  def answer(self, values, status=200):
    body = json.dumps(values).encode()
    self.send_response(status)
    self.send_header("Content-Type", "application/json")
    self.send_header("Content-Length", str(len(body)))
    self.end_headers()
    self.wfile.write(body)

  def do_GET(self):
    self.dispatch(b"")

  def do_POST(self):
    self.dispatch(self.rfile.read(int(self.headers["Content-Length"])))

  do_PUT = do_POST

  def dispatch(self, body):
    hub, path = self.server, self.path.partition("?")[0]
    hub.asked.append(f"{self.command} {path}")
    # Large files lie elsewhere, as the hub's do; and one question is of the
    # client itself, for its statistics.
    if path.startswith(("/api/models", "/api/repos")):
      assert self.headers["Authorization"] == "Bearer hf_secret"
    if hub.refusal:
      return self.answer({"error": hub.refusal[1]}, hub.refusal[0])
    match path.removeprefix(f"/api/models/{NAME}").split("/")[1:]:
      case ["api", "repos", "create"]:
        made = json.loads(body)
        name = f"{made['organization']}/{made['name']}"
        known = name in hub.made
        hub.made.setdefault(name, made)
        self.answer({"url": f"{hub.address}/{name}"}, 409 if known else 200)
      case [] | ["revision", _]:
        made = hub.made[NAME]
        self.answer({"id": NAME, "private": bool(
            made.get("private") or made.get("visibility") == "private")})
      case ["api", "validate-yaml"]:
        self.answer({"errors": [], "warnings": []})
      case ["branch", _]:
        self.answer({})
      case ["preupload", _]:
        self.answer({"files": [
            {"path": file["path"], "shouldIgnore": False, "uploadMode":
             "lfs" if file["path"].endswith(".safetensors") else "regular"}
            for file in json.loads(body)["files"]]})
      case [*_, "objects", "batch"]:
        self.answer({"transfer": "basic", "objects": [
            entry | {"actions": {"upload": {
                "href": f"{hub.address}/large/{entry['oid']}"}}}
            for entry in json.loads(body)["objects"]]})
      case ["large", digest]:
        hub.large[digest] = body
        self.answer({})
      case ["commit", branch]:
        _, *changes = map(json.loads, body.splitlines())
        hub.commits.append((branch, {
            change["value"]["path"]: hub.large[change["value"]["oid"]]
            if change["key"] == "lfsFile"
            else base64.b64decode(change["value"]["content"])
            for change in changes}))
        self.answer({"commitUrl": f"{hub.address}/{NAME}/commit/1",
                     "commitOid": "1"})
      case _:
        self.answer({"error": f"no {path} here"}, 404)


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
  """The server, and a client that is logged in to it and to no other."""
  server = StandIn()
  thread = threading.Thread(target=server.serve_forever, args=(.01,))
  thread.start()
  # What HF_ENDPOINT and the like are read into when the client is imported.
  monkeypatch.setattr(constants, "ENDPOINT", server.address)
  monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
  monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
  monkeypatch.setenv("HF_TOKEN", "hf_secret")
  monkeypatch.setenv("TMPDIR", str(tmp_path))
  monkeypatch.setattr("tempfile.tempdir", None)
  disable_progress_bars()
  yield server
  server.shutdown()
  thread.join()
  server.server_close()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """A run from a model of the hub, which two protocols have scored."""
  folder = tmp_path_factory.mktemp("hub")
  vocabulary(directory(folder / "hf", "bert/class"))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(hub, "download", lambda name: folder / "hf")
    importer.save(importer.read(BASE), folder / "base")
  _, flat = importer.network(folder / "hf")
  path = run(folder, flat, Classification(labels=("no", "yes", "maybe")),
             init_from=str(folder / "base"))
  checkpoint = read_checkpoint(path).name
  scores.write(path, Score(
      "rte@1 length=10", "f00d", "accuracy", False, np.array([.5, .75]),
      np.ones((2, 8)), np.ones((2, 8)), checkpoint=checkpoint))
  scores.write(path, Score("mlm@1 length=10", "cafe", "nats a token",
                           values_R=np.array([2.5]), checkpoint="step 2, old"))
  return path


# The client calls its own library by an old name.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_push_commits_what_export_writes(workdir, stand_in, tmp_path, capsys,
                                         monkeypatch):
  export = exporter.export

  def export_and_keep(run, folder, *arguments):
    exported = export(run, folder, *arguments)
    shutil.copytree(folder, tmp_path / "out", dirs_exist_ok=True)
    return exported

  monkeypatch.setattr(exporter, "export", export_and_keep)
  command = ["push", str(workdir), NAME, *OPTIONS]
  assert main([*command, "--private", "--revision", "v1"]) == 0
  out = capsys.readouterr().out
  assert out.endswith(f"{stand_in.address}/{NAME}/tree/v1\n")
  [(branch, files)] = stand_in.commits
  assert branch == "v1" and len(stand_in.large) == 1
  assert files == {path.name: path.read_bytes()
                   for path in (tmp_path / "out").iterdir()}
  card = files["README.md"].decode()
  assert f'AutoTokenizer.from_pretrained("{NAME}")' in card
  assert "# tiny-bert" in card
  # Again, it is the same repository, and another commit.
  assert main(command) == 0
  assert [branch for branch, _ in stand_in.commits] == ["v1", "main"]
  assert len(stand_in.made) == 1
  # Nothing is left behind.
  assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_card_is_read_back_by_the_hubs_own_class(workdir, tmp_path):
  assert main(["export", str(workdir), str(tmp_path / "tiny"), *OPTIONS]) == 0
  text = (tmp_path / "tiny" / "README.md").read_text()
  card = huggingface_hub.ModelCard(text)
  assert card.data.license == "apache-2.0" and card.data.language == "en"
  assert card.data.base_model == BASE
  assert card.data.base_model_relation == "finetune"
  assert card.data.datasets == ["me/reviews"]
  assert card.data.pipeline_tag == "text-classification"
  own, by_protocol = card.data.eval_results
  assert (own.dataset_type, own.dataset_split, own.metric_type,
          own.metric_value) == ("me/reviews", "held out", "accuracy", .75)
  assert "one seed, of the last step" in own.metric_name
  assert (by_protocol.dataset_type, by_protocol.dataset_config,
          by_protocol.dataset_split, by_protocol.metric_value) == (
              "rte@1", "length=10", "dev set", .625)
  assert by_protocol.metric_name == "accuracy by rte@1 length=10, seeds: 2"
  assert by_protocol.task_type == "text-classification"
  row = next(line for line in text.splitlines() if "| rte@1" in line)
  assert re.sub(" +", " ", row) == (
      "| rte@1 length=10 | accuracy | 0.625 | 0.18 | 2 | dev set | 8 | f00d |")
  assert "* rte@1: RTE: does a sentence follow from a text?" in text
  assert "nats a token" not in text  # Of another checkpoint.
  flops, devices, hours = (re.search(
      rf"\| {row} +\| (.*?) *\|", text)[1] for row in (
          "FLOPs", "devices", "hours"))
  assert float(flops.split()[0]) > 1e6 and "in these steps" in flops
  assert (devices, hours) == ("8 x cpu", "0.50 by the clock")
  # A header of the same content in, the same content out.
  assert huggingface_hub.ModelCard(str(card)).data.to_dict() == (
      card.data.to_dict())


def test_dry_run_lists_files_and_problems_and_sends_nothing(
    workdir, stand_in, tmp_path, capsys, monkeypatch):
  monkeypatch.delenv("HF_TOKEN")
  assert main(["push", str(workdir), NAME, "--dry-run"]) == 0
  out = capsys.readouterr().out
  size = re.search(r"\| model.safetensors +\| +([\d,]+) \|", out)[1]
  exporter.export(workdir, tmp_path / "out")
  assert int(size.replace(",", "")) == os.path.getsize(
      tmp_path / "out" / "model.safetensors")
  for words in ("README.md: license: none given", "language: none given",
                "datasets: none given", "scores: 1 of RUN/scores are of",
                f"places on this machine: init_from={workdir.parent}/base",
                f"Without --dry-run they go to {stand_in.address}/{NAME}."):
    assert words in out, words
  assert "base_model:" not in out  # It is known.
  assert not stand_in.asked
  assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("status, words", [
    (401, "The token is not accepted; log in again: `hf auth login`"),
    (403, "The token may not write to me; take a name of your own"),
    (None, "The hub does not answer; check the network, and HF_ENDPOINT")])
def test_failed_upload_is_explained_and_kept(workdir, stand_in, status, words,
                                             capsys, monkeypatch):
  if status:
    stand_in.refusal = status, "no, thank you"
  else:  # A port that nobody listens to.
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
  assert main(["push", str(workdir), NAME, *OPTIONS]) == 1
  error = capsys.readouterr().err
  assert f"{constants.ENDPOINT}/{NAME} was not uploaded. {words}" in error
  assert ("no, thank you" in error) == bool(status)
  kept = pathlib.Path(re.search(r"The export is kept in (.*)\.", error)[1])
  assert (kept / "model.safetensors").is_file()


def test_public_repository_gets_nothing_private(workdir, stand_in, capsys):
  stand_in.made[NAME] = {}
  assert main(["push", str(workdir), NAME, "--private"]) == 1
  assert f"{NAME} is there already, and public" in capsys.readouterr().err
  assert not stand_in.commits


@pytest.mark.parametrize("arguments, words", [
    (["tiny"], "name tiny: expected OWNER/NAME, of letters, digits"),
    (["my self/a..b"], "; as my-self/a-b."),
    ([NAME, "--license", "Apache 2"], "did you mean 'apache-2.0'?"),
    ([NAME, "--base-model", "bert base"], "as OWNER/bert-base."),
    ([NAME], "Nobody is logged in to the hub: `hf auth login`, or HF_TOKEN")])
def test_mistakes_are_explained_before_anything_is_done(
    arguments, words, stand_in, monkeypatch, capsys):
  monkeypatch.delenv("HF_TOKEN")
  assert main(["push", "nowhere", *arguments]) == 1
  assert words in capsys.readouterr().err
  assert not stand_in.asked


@pytest.mark.parametrize("name, nearest", [
    ("MIT", None), ("cc-by-4.0", None), ("gpl-3.0", None), ("other", None),
    ("unknown", None), ("MIT License", "mit"), ("gpl3", "gpl-3.0"),
    ("apache-2.0 or mit", ""), ("LicenseRef-mine", ""), ("mit+", "mit")])
def test_licenses_are_those_of_spdx(name, nearest):
  if nearest is None:
    return check_license(name)
  with pytest.raises(UserError, match=f"did you mean '{nearest}'" if nearest
                     else "not SPDX's identifier of a license"):
    check_license(name)
