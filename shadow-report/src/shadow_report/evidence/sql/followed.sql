-- How far a follower has come: the oldest primary call among those of the shadow's newest calls. What came
-- later may still be sent; the few that are sent at once end in any order.
SELECT min(p.request_time)
FROM (
    SELECT pair_id
    FROM inference_requests
    WHERE role = 'shadow' AND inference_service = %(shadow)s
      AND request_time >= %(shadow_joined_since)s::timestamptz
      AND created_at >= %(delivered_since)s::timestamptz
    ORDER BY request_time DESC
    LIMIT 64
) AS s
JOIN inference_requests p ON p.pair_id = s.pair_id AND p.role = 'primary' AND p.inference_service = %(primary)s
