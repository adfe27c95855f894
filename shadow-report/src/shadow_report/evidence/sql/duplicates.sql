-- Further calls with a pair id that the same side had recorded already, by role; as 'joined' those among all
-- of the shadow's calls that pairs.sql joins, of which a bounded window has a part. Sorting the hashes of the
-- ids takes a fraction of the time and memory of the ids; what they find is looked at by id again.
SELECT 'primary' AS role, count(*) - count(DISTINCT hashtextextended(pair_id, 0)) AS duplicates
FROM inference_requests
WHERE role = 'primary' AND inference_service = %(primary)s AND NOT starts_with(pair_id, 'itself:')
  AND request_time >= %(since)s::timestamptz AND request_time < %(until)s::timestamptz
  AND (%(pair_ids)s::text[] IS NULL OR pair_id = ANY (%(pair_ids)s::text[]))
UNION ALL
SELECT 'shadow', count(*) - count(DISTINCT hashtextextended(pair_id, 0))
FROM inference_requests r
WHERE role = 'shadow' AND inference_service = %(shadow)s
  AND request_time >= %(shadow_since)s::timestamptz AND request_time < %(shadow_until)s::timestamptz
  AND created_at >= %(shadow_recorded_since)s::timestamptz
  AND (NOT %(is_followed)s OR EXISTS (
      SELECT FROM inference_requests p
      WHERE p.pair_id = r.pair_id AND p.role = 'primary'
        AND p.request_time >= %(since)s::timestamptz AND p.request_time < %(until)s::timestamptz))
  AND (%(pair_ids)s::text[] IS NULL OR pair_id = ANY (%(pair_ids)s::text[]))
UNION ALL
SELECT 'joined', count(*) - count(DISTINCT hashtextextended(pair_id, 0))
FROM inference_requests
WHERE %(is_bounded)s AND role = 'shadow' AND inference_service = %(shadow)s
  AND request_time >= %(shadow_joined_since)s::timestamptz
  AND created_at >= %(shadow_recorded_since)s::timestamptz
  AND (%(pair_ids)s::text[] IS NULL OR pair_id = ANY (%(pair_ids)s::text[]))
