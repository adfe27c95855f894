-- What each recording process contributed, in small groups: who, how many, when, from where.
SELECT role, inference_service, model_name, model_version, protocol, pair_source, recorder_id,
       count(*)                                   AS calls,
       count(*) FILTER (WHERE request_truncated)  AS cut_requests,
       min(request_time)                          AS first_call,
       max(request_time)                          AS last_call,
       min(sequence)                              AS first_sequence,
       max(sequence)                              AS last_sequence,
       extract(epoch FROM max(created_at - request_time))::double precision AS delivery_lag_seconds
FROM inference_requests r
-- Without what the primary was sent once more, to be compared with itself.
WHERE created_at >= %(delivered_since)s::timestamptz
  AND ((role = 'primary' AND NOT starts_with(pair_id, 'itself:')
        AND request_time >= %(since)s::timestamptz AND request_time < %(until)s::timestamptz)
    OR (role = 'shadow' AND request_time >= %(shadow_since)s::timestamptz AND request_time < %(shadow_until)s::timestamptz
        AND created_at >= %(shadow_recorded_since)s::timestamptz
        AND (NOT %(is_followed)s OR EXISTS (
            SELECT FROM inference_requests p
            WHERE p.pair_id = r.pair_id AND p.role = 'primary'
              AND p.request_time >= %(since)s::timestamptz AND p.request_time < %(until)s::timestamptz)
            AND NOT EXISTS (
            SELECT FROM inference_requests p
            WHERE p.pair_id = r.pair_id AND p.role = 'primary'
              AND p.request_time >= %(whole_since)s::timestamptz AND p.request_time < %(since)s::timestamptz))))
GROUP BY role, inference_service, model_name, model_version, protocol, pair_source, recorder_id
ORDER BY role, inference_service, first_call, recorder_id
