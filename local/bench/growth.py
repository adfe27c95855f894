"""h) Whether recording slows down as the tables grow, and the report's time over rows."""

from __future__ import annotations

import psycopg

FILL = """
WITH calls AS (
    SELECT n, gen_random_uuid() AS primary_id, gen_random_uuid() AS shadow_id,
           date_trunc('day', now()) + n * interval '1 ms' AS at
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
),
sides AS (
    SELECT n, at, primary_id AS record_id, 'primary' AS role, %(primary_recorder)s::uuid AS recorder
    FROM calls
    UNION ALL
    SELECT n, at + interval '1 ms', shadow_id, 'shadow', %(shadow_recorder)s::uuid FROM calls
),
requests AS (
    INSERT INTO inference_requests (record_id, request_time, recorder_id, sequence, pair_id,
        pair_source, role, inference_service, model_name, protocol, predict_url, request_headers,
        request_data, request_size, request_sha256)
    SELECT record_id, at, recorder, n, 'pair-' || n, 'x-shadow-pair-id', role, role, 'model', 'v1',
           '/v1/models/model:predict', '{}', ('{"values": [' || n || ']}')::json, 20,
           sha256(n::text::bytea)
    FROM sides
)
INSERT INTO inference_responses (record_id, request_time, response_time, status_code, duration_ms,
    response_data, response_size)
SELECT record_id, at, at + interval '5 ms', 200, 5 + n %% 7,
       ('{"predictions": [' || n * 2 || '.5, ' || n || ', 0.25]}')::json, 40
FROM sides
"""
PRIMARY_RECORDER = "0197a000-0000-7000-8000-000000000001"
SHADOW_RECORDER = "0197a000-0000-7000-8000-000000000002"


def fill(uri: str, first: int, last: int) -> None:
    """Add the pairs `first` to `last`, equal on both sides: two rows a pair in each table."""
    recorders = {"primary_recorder": PRIMARY_RECORDER, "shadow_recorder": SHADOW_RECORDER}
    with psycopg.connect(uri, autocommit=True) as connection:
        for start in range(first, last + 1, 500_000):
            end = min(start + 499_999, last)
            connection.execute(FILL, {"first": start, "last": end} | recorders)
        connection.execute("VACUUM ANALYZE inference_requests, inference_responses")
