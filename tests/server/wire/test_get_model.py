"""GetModel says how to ask a model: by the columns that it was sealed with; and whose evidence it carries."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from signalserve.predictors.schema import schema_hash
from signalserve.v1 import registry_pb2
from tests.cli.test_commands import signalserve
from tests.registries import registry_at
from tests.server.wire.conftest import NAMES, Registry, Server, request
from tests.small_models import register_copy

GOOD = [0.1, 0.2, 0.3, 0.4]


def test_an_edited_meta_json_changes_no_columns_of_a_model(server: Server, registry: Registry) -> None:
    path = registry.base / registry["a"] / "meta.json"
    values = json.loads(path.read_text())
    for content in (json.dumps(values | {"feature_cols": NAMES[::-1]}), "spoilt"):
        path.write_text(content)
        details = server.registry.GetModel(registry_pb2.GetModelRequest(model_id=registry["a"])).details
        assert list(details.feature_names) == NAMES
        assert details.schema_hash == schema_hash(NAMES)
        assert len(server.prediction.Predict(request(GOOD, schema_hash=details.schema_hash)).scores) == 1
    assert any("not JSON" in problem for problem in details.model.problems)


def test_a_refit_is_listed_with_the_model_whose_evidence_it_carries(
    tmp_path: Path, template: Path, serve: Callable[..., Server]
) -> None:
    base = tmp_path / "models"
    register_copy(template, base, "measured")
    digest = registry_at(base).state.digests["measured"]
    extra = {"refit_of": {"model_id": "measured", "digest": digest}}
    register_copy(template, base, "refit", extra=extra)
    server = serve(base)
    assert {item.model_id: item.refit_of for item in server.client.list_models()} == {
        "measured": "",
        "refit": "measured",
    }
    assert server.client.get_model("refit").model.refit_of == "measured"
    listed = signalserve("models", "--target", server.target)
    assert listed.count("refitted, on the evidence of measured") == 1
    assert "refitted, on the evidence of" in signalserve("models", "refit", "--target", server.target)
