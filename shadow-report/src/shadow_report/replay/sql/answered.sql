-- The status that a shadow recorded for each of these pairs, where it has answered already.
SELECT r.pair_id, min(a.status_code)
FROM inference_requests r
CROSS JOIN LATERAL (
    SELECT status_code FROM inference_responses
    WHERE record_id = r.record_id AND request_time = r.request_time AND pair_id = r.pair_id
    LIMIT 1
) AS a
WHERE r.role = %(role)s AND r.pair_id = ANY(%(pair_ids)s) AND r.created_at >= %(since)s
  AND r.request_time >= %(since)s::timestamptz - interval '1 day'
GROUP BY r.pair_id
