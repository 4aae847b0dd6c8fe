"""Whatever the OpenAPI schema allows, and what it does not, is answered as the schema says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from deblurd.serve.app import create_app
from deblurd.serve.guard import Access
from deblurd.serve.server import Server
from tests.serve.conftest import FakeView

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

LEAST_OPERATIONS = 15


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_every_answer_is_as_the_schema_says(view: FakeView, mode: str) -> None:
    kind = schemathesis.GenerationMode(mode)
    with Server(create_app(view, Access()), "127.0.0.1", 0) as server:
        schema = schemathesis.openapi.from_url(f"{server.url}openapi.json")
        operations = [found.ok() for found in schema.get_all_operations()]
        assert len(operations) >= LEAST_OPERATIONS
        for operation in operations:
            if kind is schemathesis.GenerationMode.NEGATIVE and not operation.path_parameters:
                continue

            @given(case=operation.as_strategy(generation_mode=kind))
            @settings(
                max_examples=12,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            def agrees(case: Any) -> None:
                case.call_and_validate()

            agrees()
