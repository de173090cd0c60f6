"""What is kept of a test set while its features are there: plain values and a few features."""

from __future__ import annotations

from fedreid_pl.config import Config
from fedreid_pl.data.federated import VALIDATION
from fedreid_pl.federation.client.worker import Look
from fedreid_pl.federation.messages import ClientJob
from fedreid_pl.functional.randomness import generator
from fedreid_pl.functional.ranked_lists import cmc_curve
from fedreid_pl.functional.ranking import summarize
from fedreid_pl.functional.reranking import reranked_results
from fedreid_pl.inspection.choice import choose_lists, frequent_confusions, spread_rows
from fedreid_pl.inspection.open_set import open_set_look
from fedreid_pl.metrics.retrieval import RankedSets
from fedreid_pl.reporting.inspection import shows_images

RANKS = 50
RERANKED = ("rank1", "rank5", "rank10", "mAP")


class LookBehind:
    """Sums up what a test set's scores are computed from, at the client that computes them.

    What it returns travels beside the update within one trust domain, and is never a part of the update.

    Args:
        config: the run's; `report` says what is kept.
    """

    def __init__(self, config: Config) -> None:
        self.config, self.images = config, shows_images(config)

    def __call__(self, job: ClientJob, trained: bool, test: str, sets: RankedSets) -> Look | None:
        """Returns what is kept of one test set of one model; `trained`: the client's own, right after its turn.

        Returns:
            `round`, `test`, `client` and `model` (the client's name, or `global`), and either `problem`, an error in
            one line (a look behind the scores is never worth a run), or the content: what
            `inspection.open_set.open_set_look` returns, and of a test set also `curve`, `lists`, `confusions`,
            `rows`, `features` `[rows, D]` float32 on the CPU, and `reranked` (empty unless `report.rerank`). Of a
            validation set nothing else is kept.
        """
        look: Look = {
            "round": job.round,
            "test": test,
            "client": job.client,
            "model": job.client if trained or not job.exchanged else "global",
        }
        try:
            return look | open_set_look(sets) | ({} if test.startswith(VALIDATION) else self._content(test, sets))
        except Exception as error:
            return look | {"problem": f"{test}: {type(error).__name__}: {' '.join(str(error).split())}"}

    def _content(self, test: str, sets: RankedSets) -> Look:
        curve = cmc_curve(sets.results, RANKS, self.config.data.keep_unmatched).tolist()
        numbers: Look = {"curve": curve, "reranked": self._reranked(sets)}
        if not self.images:
            return {**numbers, "lists": [], "confusions": [], "rows": [], "features": sets.query[:0].cpu()}
        seed = self.config.data.split_seed  # not the run's: all runs of a comparison show the same queries
        rows = spread_rows(sets.query_identities.tolist(), generator(seed, "embedding", test))
        lists = choose_lists(sets, self.config.report.queries, generator(seed, "ranked", test))
        return {
            **numbers,
            "lists": [entry._asdict() for entry in lists],
            "confusions": frequent_confusions(sets),
            "rows": rows,
            "features": sets.query[rows].cpu(),
        }

    def _reranked(self, sets: RankedSets) -> dict[str, float]:
        """Rank-1, 5, 10 and mAP after k-reciprocal re-ranking, if the run asks for them."""
        if not self.config.report.rerank:
            return {}
        results = reranked_results(*sets[:6], ties=self.config.ties)  # type: ignore[arg-type]
        scores = summarize(results, keep_unmatched=self.config.data.keep_unmatched)
        return {name: scores[name] for name in RERANKED}
