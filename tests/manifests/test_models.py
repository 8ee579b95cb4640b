"""The objects of KServe and Kubeflow Trainer, through the typed models of their SDKs."""

from __future__ import annotations

import re
from typing import Any

import kserve
import pytest
from kubernetes import client


def built(kind: str, content: Any) -> Any:
    """Make an object of the SDK's model ``kind``; an unknown or missing field raises."""
    if content is None or kind in ("object", "str", "int", "bool", "float", "datetime"):
        return content
    if listed := re.fullmatch(r"list\[(.+)\]", kind):
        return [built(listed[1], each) for each in content]
    if mapped := re.fullmatch(r"dict[\[(]str, (.+)[\])]", kind):
        return {key: built(mapped[1], each) for key, each in content.items()}
    model = getattr(kserve, kind, None) or getattr(client, kind)
    attribute_of = {name: attribute for attribute, name in model.attribute_map.items()}
    unknown = set(content) - set(attribute_of)
    assert not unknown, f"{kind} has no {', '.join(sorted(unknown))}"
    return model(
        **{
            attribute_of[name]: built(model.openapi_types[attribute_of[name]], value)
            for name, value in content.items()
        }
    )


def test_the_serving_objects_are_what_kserve_knows(objects):
    kinds = {
        "InferenceService": "V1beta1InferenceService",
        "ServingRuntime": "V1alpha1ServingRuntime",
    }
    found = {
        each["kind"]: built(kinds[each["kind"]], each) for each in objects if each["kind"] in kinds
    }
    service, runtime = found["InferenceService"], found["ServingRuntime"]
    assert service.spec.predictor.model.runtime == runtime.metadata.name
    formats = {(each.name, each.version) for each in runtime.spec.supported_model_formats}
    asked = service.spec.predictor.model.model_format
    assert (asked.name, asked.version) in formats
    assert service.metadata.annotations["serving.kserve.io/deploymentMode"] == "Standard"


def test_a_field_that_kserve_does_not_know_is_refused():
    with pytest.raises(AssertionError, match="has no minReplica"):
        built("V1beta1PredictorSpec", {"minReplica": 1})


@pytest.mark.parametrize("overlay", ["staging", "production", "everything"])
def test_the_runtime_is_what_trainer_knows(objects_of, overlay):
    from kubeflow_trainer_api.models import TrainerV1alpha1TrainingRuntime

    from components.finetune.cluster import NODE
    from components.finetune.config import TrainJobConfig

    (runtime,) = [each for each in objects_of(overlay) if each["kind"] == "TrainingRuntime"]
    model = TrainerV1alpha1TrainingRuntime.from_dict(runtime)
    assert model is not None
    # What the model does not know, it would have dropped.
    assert model.to_dict() == runtime
    assert model.metadata.name == TrainJobConfig().runtime
    (job,) = model.spec.template.spec.replicated_jobs
    assert job.name == NODE
    assert [each.name for each in job.template.spec.template.spec.containers] == [NODE]
