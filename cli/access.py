"""`signalserve access`: the table of who may do what."""

from __future__ import annotations

from signalserve.cli.options import JsonOption
from signalserve.cli.output import print_json, print_table


def access(json_output: JsonOption = False) -> None:
    """Print which role may do what, over gRPC and in ML Lab."""
    from signalserve.access.identity import Role
    from signalserve.access.table import TABLE

    if json_output:
        print_json(
            [
                {
                    "operation": row.operation,
                    "roles": None if row.roles is None else [str(role) for role in Role if role in row.roles],
                }
                for row in TABLE
            ]
        )
        return
    print_table(
        ("operation", *Role, ""),
        [
            (
                row.operation,
                *("yes" if row.roles is None or role in row.roles else "" for role in Role),
                "without a token too" if row.roles is None else row.why,
            )
            for row in TABLE
        ],
    )
