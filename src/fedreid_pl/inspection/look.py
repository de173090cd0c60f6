"""The inspection data of a test set, computed while its features are in memory: plain values and a few features."""

from __future__ import annotations

from fedreid_pl.config import Config
from fedreid_pl.data.federated import VALIDATION
from fedreid_pl.federation.client.worker import Look
from fedreid_pl.federation.messages import ClientJob
from fedreid_pl.functional.person_scores import person_scores
from fedreid_pl.functional.randomness import generator
from fedreid_pl.functional.ranked_lists import cmc_curve
from fedreid_pl.functional.ranking import summarize
from fedreid_pl.functional.reranking import reranked_results
from fedreid_pl.inspection.choice import choose_lists, frequent_confusions, spread_rows
from fedreid_pl.inspection.open_set import open_set_look
from fedreid_pl.metrics.retrieval import RankedSets
from fedreid_pl.reporting.inspection import shows_images

RANKS = 50
DIGITS = 6  # decimals of the scores of a person
RERANKED = ("rank1", "rank5", "rank10", "mAP")


class LookBehind:
    """Computes the inspection data of a test set at the client that evaluates it.

    The result is sent beside the update, only within one trust domain, and is never a part of the update.

    Args:
        config: configuration of the run; `report` selects the data.
    """

    def __init__(self, config: Config) -> None:
        self.config, self.images = config, shows_images(config)

    def __call__(self, job: ClientJob, trained: bool, test: str, sets: RankedSets) -> Look | None:
        """Returns the inspection data of one test set and one model.

        Args:
            job: the job of the client.
            trained: `True` for the client's own model directly after its training.
            test: name of the test set.
            sets: the ranked query and gallery lists.

        Returns:
            `round`, `test`, `client` and `model` (the client's name, or `global`). In case of an error also `problem`,
            the error in one line, because an inspection must not stop a run. Otherwise the result of
            `inspection.open_set.open_set_look`, and for test sets (not for validation sets) `curve`, `persons` (scores
            by person), `lists`, `confusions`, `rows`, `features` `[rows, D]` float32 on the CPU, and `reranked` (empty
            unless `report.rerank`).
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
        unmatched = self.config.data.keep_unmatched
        persons = person_scores(sets.results, sets.query_identities, unmatched)
        numbers: Look = {
            "curve": cmc_curve(sets.results, RANKS, unmatched).tolist(),
            "persons": {
                "queries": persons.queries.tolist(),
                "rank1": [round(value, DIGITS) for value in persons.rank1.tolist()],
                "mAP": [round(value, DIGITS) for value in persons.ap.tolist()],
            },
            "reranked": self._reranked(sets),
        }
        if not self.images:
            return {**numbers, "lists": [], "confusions": [], "rows": [], "features": sets.query[:0].cpu()}
        seed = self.config.data.split_seed  # with the split's seed, all runs of a comparison show the same queries
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
        """Returns Rank-1, 5, 10 and mAP after k-reciprocal re-ranking if `report.rerank` is set, else an empty dict."""
        if not self.config.report.rerank:
            return {}
        results = reranked_results(*sets[:6], ties=self.config.ties)  # type: ignore[arg-type]
        scores = summarize(results, keep_unmatched=self.config.data.keep_unmatched)
        return {name: scores[name] for name in RERANKED}
