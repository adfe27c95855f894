-- How many of these pairs each shadow has answered and recorded, the busiest shadow first.
SELECT inference_service, count(DISTINCT pair_id) FROM inference_requests r
JOIN inference_responses a USING (record_id, request_time)
WHERE role = 'shadow' AND pair_id = ANY(%(pair_ids)s) AND r.request_time >= %(since)s
GROUP BY inference_service ORDER BY 2 DESC
