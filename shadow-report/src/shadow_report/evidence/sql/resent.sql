-- Attempts of a follower or a replay that have no answer, of pairs that have one: the candidate's process
-- ended in the middle of them, and the call was sent again.
SELECT coalesce(sum(unanswered), 0)::bigint
FROM (
    SELECT count(*) - count(a.record_id) AS unanswered
    FROM inference_requests r
    LEFT JOIN inference_responses a
           ON a.record_id = r.record_id AND a.request_time = r.request_time AND a.pair_id = r.pair_id
    WHERE r.role = 'shadow' AND r.inference_service = %(shadow)s
      AND r.request_time >= %(shadow_since)s::timestamptz AND r.request_time < %(shadow_until)s::timestamptz
      AND r.created_at >= %(shadow_recorded_since)s::timestamptz
      AND (NOT %(is_followed)s OR EXISTS (
            SELECT FROM inference_requests p
            WHERE p.pair_id = r.pair_id AND p.role = 'primary'
              AND p.request_time >= %(since)s::timestamptz AND p.request_time < %(until)s::timestamptz))
      AND (%(pair_ids)s::text[] IS NULL OR r.pair_id = ANY (%(pair_ids)s::text[]))
      AND r.request_headers ->> 'x-shadow-source' IS NOT NULL
    GROUP BY r.pair_id
    HAVING count(*) > 1 AND count(a.record_id) > 0
) AS pairs
