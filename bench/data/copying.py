"""Copying: symbols drawn at random, a mark, and the same symbols again, to be predicted token by token.

x = s_1 ... s_k, mark, s_1 ... s_(k-1)   and   y = s_2 ... s_k, mark, s_1 ... s_k

with k = SYMBOLS symbols of KINDS kinds and T = 2k. The first k - 1 labels cannot be known: each costs log KINDS nats
at least, in expectation; the mark and the copy can be known for certain. The best reachable loss is therefore

    BEST_LOSS = (k - 1) / (2k) log KINDS = 1.185 nats a token, a perplexity of 3.27;

without memory of the symbols it is (2k - 1) / (2k) log KINDS = 2.539.
"""

import math
from pathlib import Path

from bench.api.dataset import DataSet, DataSetInfo, Source, Split
from bench.api.kinds import Input, Output
from bench.catalog.register import register

SYMBOLS, KINDS = 8, 15
MARK = KINDS
VOCABULARY = KINDS + 1
STEPS = 2 * SYMBOLS
N_TRAIN, N_TEST = 4000, 1000
BEST_LOSS = (SYMBOLS - 1) / STEPS * math.log(KINDS)


@register
class Copying(DataSet):
    info = DataSetInfo(
        name="copying",
        title="Copying of 8 random symbols, token by token",
        input=Input.tokens(STEPS, VOCABULARY),
        output=Output("next token", VOCABULARY, STEPS),
        n_train=N_TRAIN,
        n_test=N_TEST,
        source="after Hochreiter & Schmidhuber 1997 and Graves, Wayne & Danihelka 2014, Neural Turing machines",
        paper="graves2014neural",
        size="generated",
    )

    def read(self, folder: Path) -> Source:
        import numpy as np
        import torch

        # RandomState, because its stream is frozen (NEP 19)
        symbols = np.random.RandomState(0).randint(KINDS, size=(N_TRAIN + N_TEST, SYMBOLS))
        mark = np.full((len(symbols), 1), MARK)
        tokens = torch.from_numpy(np.concatenate([symbols, mark, symbols], axis=1).astype(np.int64))
        x, y = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        return Source(
            Output("next token", VOCABULARY, STEPS),
            Split(x[:N_TRAIN], y[:N_TRAIN]),
            Split(x[N_TRAIN:], y[N_TRAIN:]),
            vocabulary=VOCABULARY,
        )
