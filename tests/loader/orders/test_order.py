"""fastload's own order and that of a sampler answer all that an order has to."""

import pytest

from fastload.loader.orders.order import Order
from fastload.loader.orders.planned import PlannedOrder
from fastload.loader.orders.sampled import SampledOrder, SamplerSampleOrder, SamplerStepSource
from fastload.order.sample_order import MixtureSampleOrder, PlanSampleOrder, SampleOrder
from fastload.order.step_source import PlannedStepSource, StepSource


@pytest.mark.parametrize(
    ("kind", "protocol"),
    [
        (PlannedOrder, Order),
        (SampledOrder, Order),
        (PlannedStepSource, StepSource),
        (SamplerStepSource, StepSource),
        (PlanSampleOrder, SampleOrder),
        (MixtureSampleOrder, SampleOrder),
        (SamplerSampleOrder, SampleOrder),
    ],
)
def test_a_class_has_all_of_its_protocol(kind, protocol):
    asked = {name for name in vars(protocol) if not name.startswith("_")} | {"__len__"} & vars(
        protocol
    ).keys()
    assert len(asked) >= 2
    assert asked <= vars(kind).keys()
