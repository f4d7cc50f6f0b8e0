"""A live engine's token is rotated while it asks: no bar goes without its score."""

from __future__ import annotations

from pathlib import Path

from signalserve.access.token_file import TokenFile
from signalserve.client import SignalClient
from signalserve.features.row import FeatureRow
from signalserve.live.scoring import StreamScorer
from tests.server.conftest import server_process
from tests.small_models import NAMES, rows


def test_every_bar_is_scored_while_the_token_is_rotated(base: Path, tmp_path: Path) -> None:
    file, held = TokenFile(tmp_path / "tokens.json"), tmp_path / "engine.token"
    first, token = file.create("engine", ["predict"])
    held.write_text(token)
    with (
        server_process(base, tmp_path / "log", "--token-file", str(file.path)) as (_, target),
        SignalClient(target, token=held) as client,
    ):
        scorer = StreamScorer(client, "BTCUSDT", "15m", deadline_ms=30_000)
        row = FeatureRow(rows(1)[0], tuple(NAMES), "")
        try:
            assert scorer.score(0, row).prediction is not None
            held.write_text(file.create("engine", ["predict"])[1])
            file.revoke(first.id)
            number = 0
            while scorer.report().reconnects == 0:  # until the server has ended the first stream
                number += 1
                score = scorer.score(number, row)
                assert score.prediction is not None, score.reason
            assert scorer.score(number + 1, row).prediction is not None
        finally:
            scorer.close()
