"""Tokenizers of the embedded world, in the very classes that SD1.5 and PixArt use, made from its vocabulary.

Every word of the grammar is one token; any other word falls apart into letters, so that any prompt can be read.
"""

import string
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from harness.shapes.captions import vocabulary

if TYPE_CHECKING:
    from transformers import CLIPTokenizer, T5Tokenizer

LENGTH = 32  # tokens of a prompt, start and end included; the longest caption of the grammar has 24


def clip_tokenizer() -> "CLIPTokenizer":
    """Letters, and byte-pair merges until every word of the vocabulary is whole."""
    from transformers import CLIPTokenizer

    letters = string.ascii_lowercase + string.digits
    merges = _byte_pair_merges(vocabulary())
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    pieces += [left + right for left, right in merges]
    return CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges, model_max_length=LENGTH)


def _byte_pair_merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Merge the commonest pair of neighbours, the first in the alphabet among equals, until each word is one piece."""
    split = [[*word[:-1], f"{word[-1]}</w>"] for word in words]
    merges = []
    while pairs := Counter(pair for pieces in split for pair in pairwise(pieces)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        split = [_merged(pieces, best) for pieces in split]
    return merges


def _merged(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    joined: list[str] = []
    for piece in pieces:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def t5_tokenizer() -> "T5Tokenizer":
    """A unigram model whose pieces are the words, with letters as the fallback."""
    from transformers import T5Tokenizer

    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = [(f"\u2581{word}", -1.0) for word in vocabulary()]
    taken = {piece for piece, _ in words}
    letters = [(piece, -10.0) for piece in ("\u2581", *string.ascii_lowercase, *string.digits) if piece not in taken]
    return T5Tokenizer(vocab=[*special, *words, *letters], extra_ids=0, model_max_length=LENGTH)
