"""From the counts to the verdict: gates, soundness of the evidence, decision.

Pure: no database, no terminal, no page.
"""
