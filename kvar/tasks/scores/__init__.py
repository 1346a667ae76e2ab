"""Scores of generated texts, stored as sums over examples so that they can be resampled without the texts.

``corpus_score`` has the type, ``bleu`` (BLEU and chrF) and ``rouge`` compute scores, ``bleu_tokenizers`` and
``scripts`` define their words.
"""
