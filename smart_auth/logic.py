"""Joining rules: a rule is True (every resource), False (none), or a MongoDB condition on the index of a type."""

from collections.abc import Iterable

from fhir_server.search.conditions import NOTHING, Condition

Rule = bool | Condition


def every(*rules: Rule) -> Rule:
    """What meets all of these."""
    if any(rule is False for rule in rules):
        return False
    conditions = [r for r in rules if not isinstance(r, bool)]
    return {"$and": conditions} if len(conditions) > 1 else conditions[0] if conditions else True


def some(rules: Iterable[Rule]) -> Rule:
    """What meets one of these."""
    given = list(rules)
    if any(rule is True for rule in given):
        return True
    conditions = [r for r in given if not isinstance(r, bool)]
    return {"$or": conditions} if len(conditions) > 1 else conditions[0] if conditions else False


def none(*rules: Rule) -> Rule:
    """What meets none of these."""
    if any(rule is True for rule in rules):
        return False
    conditions = [r for r in rules if not isinstance(r, bool)]
    return {"$nor": conditions} if conditions else True


def condition(rule: Rule) -> Condition | None:
    """The condition to AND into a query; None restricts nothing."""
    if isinstance(rule, bool):
        return None if rule else NOTHING
    return rule
