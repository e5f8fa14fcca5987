# PYTHON_ARGCOMPLETE_OK
"""`bert-jax COMMAND`, or `python -m bert_jax COMMAND`."""

import os


def program() -> None:
  """Runs a command, or says to a shell how one may continue: that imports no
  jax, as the user waits for it."""
  if "_ARGCOMPLETE" in os.environ:
    from bert_jax.cli import completion
    completion.answer()
  from bert_jax.cli import main
  main.program()


if __name__ == "__main__":
  program()
