"""What an API server's code says to amounts: those that a container requests and its limits.

After ValidateResourceRequirements in Kubernetes' pkg/apis/core/validation/validation.go. No schema
compares two fields; KServe and other controllers hear of it hours later, when they make the pod.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from difflib import get_close_matches
from typing import Any

# Those that a node may promise more of than it has; of huge pages and devices it may not.
OVERCOMMITTED = ("cpu", "memory", "ephemeral-storage")
HUGE_PAGES = "hugepages-"
# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity
_QUANTITY = re.compile(
    r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:([KMGTPE]i|[numkMGTPE]?)|[eE]([+-]?[0-9]{1,3}))"
)
_UNITS = {unit: Decimal(1000) ** power for power, unit in enumerate((*"num", "", *"kMGTPE"), -3)}
_UNITS |= {f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)}


def amount(quantity: object) -> Decimal | None:
    """What a quantity such as 1280Mi, 500m or 1e3 stands for; None for what is not one."""
    if not (found := _QUANTITY.fullmatch(str(quantity))):
        return None
    number, unit, exponent = found.groups()
    return Decimal(number) * (_UNITS[unit] if exponent is None else Decimal(10) ** int(exponent))


def faults(resources: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Each thing that is refused in the `resources` of a container: `limits` or `requests`, the
    name there, and what is wrong with it and what to do, to be read after these.
    """
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    single = [
        (part, name, problem)
        for part, amounts in (("limits", limits), ("requests", requests))
        for name, quantity in amounts.items()
        if (problem := _of_one(name, quantity))
    ]
    yield from single
    for name, quantity in requests.items() if not single else ():
        if problem := _of_both(name, limits.get(name), quantity):
            yield "limits", name, problem


def _of_both(name: str, limit: object, quantity: object) -> str | None:
    """What is wrong with a limit and what is requested of the same."""
    difference = _amount(limit) - _amount(quantity)
    if name in OVERCOMMITTED:
        if limit is None or difference >= 0:
            return None
        remedy = f"set it to {quantity} or more, or lower what is requested."
        return f"is {str(limit)!r}, and {str(quantity)!r} is requested; {remedy}"
    if limit is not None and not difference:
        return None
    said = "missing" if limit is None else repr(str(limit))
    remedy = "set both to one number, as this cannot be overcommitted."
    return f"is {said}, and {str(quantity)!r} is requested; {remedy}"


def _amount(quantity: object) -> Decimal:
    """The same for what its schema takes for a quantity."""
    return amount(quantity) or Decimal(0)


def _of_one(name: str, quantity: object) -> str | None:
    """What is wrong with an amount by itself."""
    if "/" not in name and name not in OVERCOMMITTED and not name.startswith(HUGE_PAGES):
        near = get_close_matches(name, OVERCOMMITTED, 1, 0.75)
        remedy = (
            f"is {near[0]} meant?" if near else "a device has its maker's name, as nvidia.com/gpu."
        )
        return f"is not a resource that a container has; {remedy}"
    if (value := _amount(quantity)) < 0:
        return f"is {str(quantity)!r}; set it to 0 or more."
    if "/" in name and value % 1:
        return f"is {str(quantity)!r}; set it to a whole number."
    return None
