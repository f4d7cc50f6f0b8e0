import pytest

from signalserve.client import NotFound
from signalserve.features.errors import UnknownPresetError
from signalserve.live.served_model import FeaturesMissingError, NotServedError, choose_pipeline, served_model
from signalserve.v1 import registry_pb2


def test_the_model_in_production_and_its_preset_decide(client, server):
    server.registry.metadata["feature_preset"] = "extended"
    details = served_model(client, "SYNTH", "15m")
    assert details.model.model_id == "first"
    chosen = choose_pipeline(details)
    assert (chosen.pipeline.preset, chosen.warning) == ("extended", "")
    assert chosen.pipeline.feature_set == "extended@1"


def test_a_pinned_model_is_looked_up_by_its_id(client):
    assert served_model(client, "SYNTH", "15m", "challenger").model.model_id == "challenger"
    with pytest.raises(NotFound):
        served_model(client, "SYNTH", "15m", "gone")


def test_a_pinned_model_that_can_never_answer_is_refused_at_once(client, server):
    with pytest.raises(NotServedError, match="challenger is a model of SYNTH/15m, not of OTHER/15m"):
        served_model(client, "OTHER", "15m", "challenger")
    server.registry.status = registry_pb2.MODEL_STATUS_FAILED
    server.registry.metadata = {"error": "no rows left"}
    with pytest.raises(NotServedError, match="challenger is a failed training run: no rows left"):
        served_model(client, "SYNTH", "15m", "challenger")


def test_a_server_that_still_loads_is_waited_for(client, server):
    server.prediction.ready = False
    assert served_model(client, "SYNTH", "15m").model.model_id == "first"


def test_a_key_with_nothing_in_production_says_what_to_do(client):
    with pytest.raises(
        NotServedError, match="no model of IDLE/15m is in production; `signalserve models"
    ) as idle:
        served_model(client, "IDLE", "15m")
    with pytest.raises(NotServedError, match="no model of OTHER/15m in the registry") as unknown:
        served_model(client, "OTHER", "15m")
    assert (idle.value.unknown, unknown.value.unknown) == (False, True)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"feature_preset": "of_old", "pipeline_version": "3"}, "of_old@3"),
        ({"feature_preset": "of_old"}, "core@1"),
        ({}, "core@1"),
    ],
)
def test_a_model_of_an_unknown_preset_gets_one_that_has_its_columns(client, server, metadata, said):
    server.registry.metadata = metadata
    server.registry.feature_names = server.registry.feature_names[5:9]
    chosen = choose_pipeline(served_model(client, "SYNTH", "15m")).pipeline
    assert (chosen.preset, chosen.feature_set) == ("core", said)


def test_a_feature_that_the_preset_does_not_give_is_named(client, server):
    server.registry.feature_names += ["moon_phase"]
    details = served_model(client, "SYNTH", "15m")
    with pytest.raises(
        FeaturesMissingError, match="needs 1 features that preset core does not give: moon_phase"
    ):
        choose_pipeline(details)
    with pytest.raises(UnknownPresetError, match="there are core, extended"):
        choose_pipeline(details, "none")


def test_a_feature_set_that_only_an_unproven_meta_json_names_is_warned_of(client, server):
    server.registry.feature_set = lambda: ""
    chosen = choose_pipeline(served_model(client, "SYNTH", "15m"))
    assert chosen.pipeline.feature_set == "core@1"
    assert "does not know what first was trained on: its meta.json" in chosen.warning
    assert "says core@1" in chosen.warning


@pytest.mark.parametrize(
    ("version", "preset", "computed"),
    [
        ("0", None, "core@1"),
        ("0", "core", "core@1"),
        ("0", "extended", "extended@1"),
        ("1", "extended", "extended@1"),
    ],
)
def test_a_preset_never_goes_by_the_name_of_another_definition(client, server, version, preset, computed):
    server.registry.metadata["pipeline_version"] = version
    chosen = choose_pipeline(served_model(client, "SYNTH", "15m"), preset)
    assert chosen.pipeline.feature_set == computed
    assert (
        f"trained on core@{version}, and this engine computes {computed}: its live scores" in chosen.warning
    )


def test_another_feature_version_of_no_known_preset_is_warned_of(client, server):
    server.registry.metadata = {"pipeline_version": "0"}
    warning = choose_pipeline(served_model(client, "SYNTH", "15m")).warning
    assert (
        "trained on feature version 0, and this engine computes version 1: its live scores differ" in warning
    )
