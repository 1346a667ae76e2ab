"""Metrics over generated texts, held as sums over examples so that intervals need no second pass over the texts.

``corpus_score`` is the type. ``bleu`` (BLEU and chrF) and ``rouge`` form scores. ``bleu_tokenizers`` and ``scripts``
say which words they count.
"""
