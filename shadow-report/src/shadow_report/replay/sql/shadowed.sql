-- What the candidate has recorded of these pairs: by which service, as whose, and whether one of the calls
-- ended. As primary it counts from a time on, where it is not the call itself that is sent: another service's,
-- or one that a follower or a replay has sent. Plain joins by all of the keys, as a distributed server wants them.
SELECT r.pair_id, r.role, r.inference_service, bool_or(a.record_id IS NOT NULL) AS ended
FROM unnest(%(pair_ids)s::text[]) AS wanted (pair_id)
JOIN inference_requests r USING (pair_id)
LEFT JOIN inference_responses a
       ON a.record_id = r.record_id AND a.request_time = r.request_time AND a.pair_id = r.pair_id
WHERE r.inference_service = coalesce(%(shadow)s, r.inference_service)
  AND (r.role = 'shadow' OR (
      r.created_at >= %(sent_since)s::timestamptz
      AND (r.inference_service <> %(primary)s OR r.request_headers ->> 'x-shadow-source' IS NOT NULL)))
  -- No clock is further behind than that.
  AND r.request_time >= %(oldest)s::timestamptz - interval '10 minutes'
GROUP BY r.pair_id, r.role, r.inference_service
