"""The OpenAPI document: what FastAPI derives from the routes, and the one shape of every error."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from signalserve.lab.api.problems import Problem


def describe(app: FastAPI, routers: Iterable[APIRouter]) -> None:
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
            _put_examples(routers, document)
            for methods in document["paths"].values():
                if "post" in methods:
                    methods["post"]["security"] = [{"token": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend the document


def _put_examples(routers: Iterable[APIRouter], document: dict[str, Any]) -> None:
    """The examples as they were given: FastAPI leaves out of them whatever is null."""
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    for route in routes:
        stated = route.responses.get(200, {}).get("content", {})
        for method in route.methods or ():
            answer = document["paths"][route.path_format][method.lower()]["responses"]["200"]
            for kind, content in stated.items():
                answer["content"][kind]["example"] = content["example"]
