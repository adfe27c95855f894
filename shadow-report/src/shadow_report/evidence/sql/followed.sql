-- How far a follower has come: the oldest primary call that it has not sent, or now. What it sends at once
-- ends in any order, and what it leaves out or gave up is passed with time: so it is looked for from the
-- oldest primary call among those of the shadow's newest calls on.
WITH newest AS (
    SELECT pair_id
    FROM inference_requests
    WHERE role = 'shadow' AND inference_service = %(shadow)s
      AND request_time >= %(shadow_joined_since)s::timestamptz
      AND created_at >= %(delivered_since)s::timestamptz
    ORDER BY request_time DESC
    LIMIT 64
),
passed AS (
    SELECT min(p.request_time) AS until
    FROM newest
    JOIN inference_requests p
      ON p.pair_id = newest.pair_id AND p.role = 'primary' AND p.inference_service = %(primary)s
)
SELECT CASE WHEN until IS NOT NULL THEN coalesce((
    SELECT p.request_time
    FROM inference_requests p
    WHERE p.role = 'primary' AND p.inference_service = %(primary)s AND p.request_time >= until
      AND NOT starts_with(p.pair_id, 'itself:')
      AND NOT EXISTS (
          SELECT FROM inference_requests s
          WHERE s.pair_id = p.pair_id AND s.role = 'shadow' AND s.inference_service = %(shadow)s
      )
    ORDER BY p.request_time
    LIMIT 1
), now()) END
FROM passed
