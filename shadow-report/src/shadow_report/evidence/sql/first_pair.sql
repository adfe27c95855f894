-- When mirroring began: the first primary call that has a shadow call, and the first shadow call that
-- has a primary call, which may be another pair's, and a little earlier. The earliest shadow calls know;
-- %(earliest)s of them are asked (NULL: all), since the very first ones may be without their primary.
-- OFFSET keeps the primaries a subquery, which each shadow call asks by the index of pair ids: of tables
-- without statistics Postgres expects one primary call, and would compare each with all of the shadow's.
SELECT min(p.request_time), min(s.request_time)
FROM (
    SELECT pair_id, request_time
    FROM inference_requests
    WHERE role = 'shadow' AND inference_service = %(shadow)s
      AND request_time >= %(shadow_joined_since)s::timestamptz
    ORDER BY request_time
    LIMIT %(earliest)s::bigint
) AS s
CROSS JOIN LATERAL (
    SELECT request_time
    FROM inference_requests
    WHERE pair_id = s.pair_id AND role = 'primary' AND inference_service = %(primary)s
      AND request_time >= %(since)s::timestamptz AND request_time < %(until)s::timestamptz
    OFFSET 0
) AS p
