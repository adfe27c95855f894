-- The primary's call of the candidate's first call since a time: from there on calls are followed. The
-- record ids are in the order of time, so the first is found without a sort.
SELECT p.request_time
FROM (
    SELECT pair_id
    FROM inference_requests
    WHERE role = 'shadow' AND inference_service = coalesce(%(shadow)s, inference_service)
      AND request_time >= %(since)s::timestamptz
    ORDER BY record_id
    LIMIT 100
) AS s
JOIN inference_requests p ON p.pair_id = s.pair_id AND p.role = 'primary'
ORDER BY p.request_time
LIMIT 1
