-- Whole pairs by their ids, for the few that the report shows.
SELECT pair_id, request_time, primary_status, shadow_status, primary_duration_ms, shadow_duration_ms,
       predict_url, request, primary_response, shadow_response, primary_error, shadow_error, primary_broken,
       shadow_broken
FROM (
    SELECT p.pair_id, p.request_time, p.predict_url,
           pa.status_code AS primary_status, sa.status_code AS shadow_status,
           pa.duration_ms AS primary_duration_ms, sa.duration_ms AS shadow_duration_ms,
           coalesce(convert_to(p.request_data::text, 'UTF8'), p.request_raw)     AS request,
           coalesce(convert_to(pa.response_data::text, 'UTF8'), pa.response_raw) AS primary_response,
           coalesce(convert_to(sa.response_data::text, 'UTF8'), sa.response_raw) AS shadow_response,
           pa.error AS primary_error, sa.error AS shadow_error,
           coalesce(pa.generation ->> 'stream_end' = 'cut'
               OR pa.generation ->> 'stream_end' IN ('done', 'no_done') AND pa.error IS NOT NULL, false)
               AS primary_broken,
           coalesce(sa.generation ->> 'stream_end' = 'cut'
               OR sa.generation ->> 'stream_end' IN ('done', 'no_done') AND sa.error IS NOT NULL, false)
               AS shadow_broken,
           row_number() OVER (PARTITION BY p.pair_id ORDER BY
               p.request_time, p.record_id,
               -- As in pairs.sql.
               sa.record_id IS NULL AND s.request_headers ->> 'x-shadow-source' IS NOT NULL,
               s.request_time, s.record_id) AS attempt
    FROM inference_requests p
    JOIN inference_requests s
      ON s.pair_id = p.pair_id AND s.role = 'shadow' AND s.inference_service = %(shadow)s
     AND s.request_time >= %(shadow_joined_since)s::timestamptz
     AND s.created_at >= %(shadow_recorded_since)s::timestamptz
    LEFT JOIN inference_responses pa
      ON pa.record_id = p.record_id AND pa.request_time = p.request_time AND pa.pair_id = p.pair_id
    LEFT JOIN inference_responses sa
      ON sa.record_id = s.record_id AND sa.request_time = s.request_time AND sa.pair_id = s.pair_id
    WHERE p.pair_id = ANY (%(pair_ids)s::text[]) AND p.role = 'primary' AND p.inference_service = %(primary)s
      AND p.request_time >= %(since)s::timestamptz AND p.request_time < %(until)s::timestamptz
) AS pairs
WHERE attempt = 1
