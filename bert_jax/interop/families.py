"""The architectures that are known, by their `model_type`."""

from bert_jax.interop.family import Family
from bert_jax.interop.family_albert import ALBERT
from bert_jax.interop.family_bert import BERT, CAMEMBERT, ROBERTA, XLM_ROBERTA
from bert_jax.interop.family_distilbert import DISTILBERT
from bert_jax.interop.family_electra import ELECTRA
from bert_jax.interop.family_modernbert import MODERNBERT
from bert_jax.interop.family_mpnet import MPNET
from bert_jax.interop.family_nomic_bert import NOMIC_BERT

FAMILIES: dict[str, Family] = {family.model_type: family for family in (
    BERT, ROBERTA, XLM_ROBERTA, CAMEMBERT, DISTILBERT, ELECTRA, ALBERT, MPNET,
    MODERNBERT, NOMIC_BERT)}
# The longest first, as one begins like another.
PREFIXES = sorted((family.prefix for family in FAMILIES.values()),
                  key=len, reverse=True)
