-- What the candidate has recorded of these pairs: its services, when its last call of the pair came, and
-- whether one of them ended. LATERAL: a lookup by the index on pair_id for each, from its call's day on.
SELECT wanted.pair_id, s.inference_service, max(s.request_time) AS last_call, bool_or(s.ended) AS ended
FROM unnest(%(pair_ids)s::text[], %(times)s::timestamptz[]) AS wanted (pair_id, request_time)
CROSS JOIN LATERAL (
    SELECT r.inference_service, r.request_time,
           EXISTS (SELECT FROM inference_responses a
                   WHERE a.record_id = r.record_id AND a.request_time = r.request_time) AS ended
    FROM inference_requests r
    WHERE r.pair_id = wanted.pair_id AND r.role = 'shadow'
      AND r.inference_service = coalesce(%(shadow)s, r.inference_service)
      -- No clock is further behind than that.
      AND r.request_time >= wanted.request_time - interval '10 minutes'
) AS s
GROUP BY wanted.pair_id, s.inference_service
