-- What the candidate has recorded of these pairs: by which service, when its last call of the pair came,
-- and whether one of them ended. Plain joins by all of the keys, as a distributed server wants them.
SELECT r.pair_id, r.inference_service, max(r.request_time) AS last_call,
       bool_or(a.record_id IS NOT NULL) AS ended
FROM unnest(%(pair_ids)s::text[]) AS wanted (pair_id)
JOIN inference_requests r USING (pair_id)
LEFT JOIN inference_responses a
       ON a.record_id = r.record_id AND a.request_time = r.request_time AND a.pair_id = r.pair_id
WHERE r.role = 'shadow' AND r.inference_service = coalesce(%(shadow)s, r.inference_service)
  -- No clock is further behind than that.
  AND r.request_time >= %(oldest)s::timestamptz - interval '10 minutes'
GROUP BY r.pair_id, r.inference_service
