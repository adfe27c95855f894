"""Which pairs a reader should look at first."""

from shadow_report.report import Example, Signature


def worst_pairs(signatures: tuple[Signature, ...], limit: int) -> list[tuple[Signature, Example]]:
    """Up to `limit` pairs, no pair twice: one of every kind of difference before a second of any.

    Faults come before disagreements, and frequent kinds before rare ones.
    """
    ranked = sorted(signatures, key=lambda s: (not s.is_fault, -s.pairs))
    queues = [(s, [*s.largest, *s.typical]) for s in ranked]
    chosen: list[tuple[Signature, Example]] = []
    seen: set[tuple[str, str]] = set()
    for turn in range(max((len(examples) for _, examples in queues), default=0)):
        for signature, examples in queues:
            if turn < len(examples) and len(chosen) < limit:
                key = (signature.signature, examples[turn].pair_id)
                if key not in seen:
                    seen.add(key)
                    chosen.append((signature, examples[turn]))
    return chosen
