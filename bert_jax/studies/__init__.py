"""Several runs that are compared: sweep, GLUE suite, quickstart; protocols.

All protocols are imported here, so that each can be given by name.
"""

from bert_jax.studies import text_protocols

__all__ = ["text_protocols"]
