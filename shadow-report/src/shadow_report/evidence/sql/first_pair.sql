-- When mirroring began: the first primary call that has a shadow call, and that one, which may have
-- been recorded a little earlier. The earliest shadow calls know;
-- %(earliest)s of them are asked (NULL: all), since the very first ones may be without their primary.
SELECT p.request_time, s.request_time
FROM (
    SELECT pair_id, request_time
    FROM inference_requests
    WHERE role = 'shadow' AND inference_service = %(shadow)s
      AND request_time >= %(shadow_joined_since)s::timestamptz
    ORDER BY request_time
    LIMIT %(earliest)s::bigint
) AS s
JOIN inference_requests p ON p.pair_id = s.pair_id AND p.role = 'primary'
WHERE p.inference_service = %(primary)s
  AND p.request_time >= %(since)s::timestamptz AND p.request_time < %(until)s::timestamptz
ORDER BY p.request_time, s.request_time
LIMIT 1
