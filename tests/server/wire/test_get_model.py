"""GetModel says how to ask a model: by the columns that it was sealed with."""

from __future__ import annotations

import json

from signalserve.predictors.schema import schema_hash
from signalserve.v1 import registry_pb2
from tests.server.wire.conftest import NAMES, Registry, Server, request

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
