-- When mirroring began: the first primary call that has a shadow call. The earliest shadow calls know;
-- %(earliest)s of them are asked (NULL: all), since the very first ones may be without their primary.
SELECT min(p.request_time)
FROM (
    SELECT pair_id
    FROM inference_requests
    WHERE role = 'shadow' AND inference_service = %(shadow)s
      AND request_time >= %(shadow_joined_since)s::timestamptz
    ORDER BY request_time
    LIMIT %(earliest)s::bigint
) AS s
JOIN inference_requests p ON p.pair_id = s.pair_id AND p.role = 'primary'
WHERE p.inference_service = %(primary)s
  AND p.request_time >= %(since)s::timestamptz AND p.request_time < %(until)s::timestamptz
