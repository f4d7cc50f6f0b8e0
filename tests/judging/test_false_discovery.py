"""A batch's p's are held against the level all at once, so that a large batch lets in no more luck than a small one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from signalserve.judging import Evidence, Measured, asked_after, benjamini_hochberg, chance

# Benjamini & Hochberg (1995), section 3.1: four of these are let in at a level of 5 %
PAPER = [
    *(0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344),
    *(0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000),
]


def test_it_gives_the_papers_example_in_any_order() -> None:
    order = np.random.default_rng(0).permutation(len(PAPER))
    found = benjamini_hochberg([PAPER[place] for place in order], 0.05)
    allowed = sorted(item.p for item in found if item.allowed)
    assert allowed == PAPER[:4]
    by_rank = sorted(found, key=lambda item: item.rank)
    assert [item.rank for item in by_rank] == list(range(1, 16))
    assert [item.bound for item in by_rank] == pytest.approx([rank / 15 * 0.05 for rank in range(1, 16)])


def test_equal_ones_share_their_fate_and_none_is_no_batch() -> None:
    assert [item.allowed for item in benjamini_hochberg([0.1, 0.1, 0.1], 0.1)] == [True] * 3
    assert [item.allowed for item in benjamini_hochberg([0.1, 0.1, 0.2], 0.1)] == [False] * 3
    assert benjamini_hochberg([], 0.1) == ()


def test_of_twenty_without_skill_a_batch_has_one_let_in_as_often_as_the_level_says() -> None:
    rng = np.random.default_rng(1)
    drawn = rng.uniform(size=(1_000, 20))
    alone = (drawn <= 0.1).any(axis=1).mean()
    batches = [any(item.allowed for item in benjamini_hochberg(list(row), 0.1)) for row in drawn]
    assert alone > 0.8
    # three standard errors of a share of 1,000
    assert np.mean(batches) == pytest.approx(0.1, abs=0.03)


def test_of_what_is_let_in_beside_skill_the_share_without_is_at_most_the_levels() -> None:
    rng = np.random.default_rng(2)
    wrong: list[float] = []
    for _ in range(500):
        row = [*rng.uniform(size=15), *(0.01 * rng.uniform(size=5))]
        allowed = [item.allowed for item in benjamini_hochberg(row, 0.1)]
        wrong.append(sum(allowed[:15]) / max(1, sum(allowed)))
        assert sum(allowed[15:]) >= 1
    assert np.mean(wrong) == pytest.approx(0.1 * 15 / 20, abs=0.02)


def evidence(timing: float | None, better: float | None = None) -> Evidence:
    model = Measured("a", "", "2026-01-01", 0.1, 1.0, 0.1, 20, timing=timing)
    champion = None if better is None else replace(model, model_id="b")
    return Evidence(
        model, champion, "2026-03-02", "2026-02-01", "2026-03-01", 2000, probability_better=better
    )


@pytest.mark.parametrize(
    ("found", "tries", "p"),
    [
        (evidence(0.97), 1, 0.03),
        (evidence(0.97, 0.95), 1, 0.05),
        (evidence(0.97, 0.99), 4, 0.12),
        (evidence(0.6), 3, 1.0),
        (evidence(None), 1, 1.0),
    ],
)
def test_p_is_that_of_the_weaker_answer_times_the_looks(found: Evidence, tries: int, p: float) -> None:
    assert chance(found, tries) == pytest.approx(p)
    asked = asked_after(0.9, tries)
    passes = all(
        value is not None and value >= asked
        for value in (found.challenger.timing, *([found.probability_better] if found.champion else []))
    )
    assert passes == (chance(found, tries) <= 0.1), "alone it is what the gate asks"
