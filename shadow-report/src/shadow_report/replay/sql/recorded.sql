-- How many of these pairs each shadow has answered and recorded, the busiest shadow first.
SELECT r.inference_service, count(DISTINCT r.pair_id)
FROM inference_requests r
CROSS JOIN LATERAL (
    SELECT FROM inference_responses
    WHERE record_id = r.record_id AND request_time = r.request_time AND pair_id = r.pair_id
    LIMIT 1
) AS a
WHERE r.role = %(role)s AND r.pair_id = ANY(%(pair_ids)s) AND r.created_at >= %(since)s
  AND r.request_time >= %(since)s::timestamptz - interval '1 day'
GROUP BY r.inference_service
ORDER BY 2 DESC
