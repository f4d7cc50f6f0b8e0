"""The OpenAPI document: what FastAPI derives from the routes, and the one shape of every error."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter

from signalserve.lab.api.problems import Problem


def describe(app: FastAPI) -> None:
    """Make the application's document say that errors are problems, and how a token is sent."""
    derive = app.openapi

    def openapi() -> dict[str, Any]:
        document = derive()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        if Problem.__name__ not in schemas:
            schema = TypeAdapter(Problem).json_schema(
                mode="serialization", ref_template="#/components/schemas/{model}"
            )
            schemas |= schema.pop("$defs", {})
            schemas[Problem.__name__] = schema
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend the document
