"""`python -m bert_jax COMMAND`."""

from bert_jax.cli.main import program

if __name__ == "__main__":
  program()
