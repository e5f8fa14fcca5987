"""`python -m bert_jax COMMAND`."""

import sys

from bert_jax.cli.main import main

if __name__ == "__main__":
  sys.exit(main())
