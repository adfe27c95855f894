-- Both services' calls of a part of the window. A further one has an earlier call of its side with its
-- pair id in the window. A follower's calls are counted of any primary's in the window, as in calls.sql.
SELECT r.role, r.pair_id, r.request_time,
       EXISTS (
           SELECT FROM inference_requests e
           WHERE e.pair_id = r.pair_id AND e.role = r.role AND e.inference_service = r.inference_service
             AND (e.request_time, e.record_id) < (r.request_time, r.record_id)
             AND e.request_time >= CASE r.role WHEN 'primary' THEN %(since)s::timestamptz
                                               ELSE %(shadow_since)s::timestamptz END
             AND (r.role = 'primary' OR e.created_at >= %(shadow_recorded_since)s::timestamptz)
       ) AS is_further
FROM inference_requests r
WHERE r.request_time >= %(part_since)s::timestamptz AND r.request_time < %(part_until)s::timestamptz
  AND r.created_at >= %(delivered_since)s::timestamptz
  AND ((r.role = 'primary' AND (r.inference_service = %(primary)s OR %(is_followed)s)
        AND NOT starts_with(r.pair_id, 'itself:'))
    OR (r.role = 'shadow' AND r.inference_service = %(shadow)s
        AND r.created_at >= %(shadow_recorded_since)s::timestamptz))
