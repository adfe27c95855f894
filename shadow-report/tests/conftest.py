"""What holds for every test of the report."""

from __future__ import annotations

import hypothesis

# A busy machine is not a fault of the code; an example that takes long is judged by its result.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")
