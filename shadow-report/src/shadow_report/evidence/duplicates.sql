-- Further calls with a pair id that the same side had recorded already, by role.
SELECT role, sum(calls - 1)::bigint AS duplicates
FROM (
    SELECT role, count(*) AS calls
    FROM inference_requests
    WHERE inference_service IN (%(primary)s, %(shadow)s)
      AND CASE role
          WHEN 'primary' THEN request_time >= %(since)s::timestamptz AND request_time < %(until)s::timestamptz
          ELSE request_time >= %(shadow_since)s::timestamptz AND request_time < %(shadow_until)s::timestamptz
          END
    -- The hash of the id takes a fraction of its memory; what it finds is looked at by id again.
    GROUP BY role, hashtextextended(pair_id, 0)
    HAVING count(*) > 1
) AS repeated
GROUP BY role
