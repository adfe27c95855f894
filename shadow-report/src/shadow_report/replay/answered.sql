-- The status that a shadow recorded for each of these pairs, where it has answered already.
SELECT r.pair_id, min(a.status_code)
FROM inference_requests r
JOIN inference_responses a USING (record_id, request_time)
WHERE r.role = 'shadow' AND r.pair_id = ANY(%(pair_ids)s) AND r.request_time >= %(since)s
GROUP BY r.pair_id
