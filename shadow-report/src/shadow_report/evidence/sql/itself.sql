-- The primary's calls of the window next to the same version's answers to the same requests once more, from
-- `replay --itself`, in the columns of pairs.sql.
SELECT p.request_time                                                         AS primary_time,
       n.request_time                                                         AS shadow_time,
       coalesce(pa.status_code, 0)                                            AS primary_status,
       coalesce(na.status_code, 0)                                            AS shadow_status,
       coalesce(pa.duration_ms, 'NaN')                                        AS primary_duration_ms,
       coalesce(na.duration_ms, 'NaN')                                        AS shadow_duration_ms,
       p.request_size                                                         AS request_size,
       (p.request_sha256 = n.request_sha256)::int
           + 2 * coalesce(pa.response_truncated, false)::int
           + 4 * coalesce(na.response_truncated, false)::int
           + 8 * (pa.response_data IS NOT NULL)::int
           + 16 * (na.response_data IS NOT NULL)::int
           + CASE WHEN pa.generation ->> 'stream_end' IN ('cut', 'left', 'stopped') THEN 2048 ELSE 0 END
           + CASE WHEN na.generation ->> 'stream_end' IN ('cut', 'left', 'stopped') THEN 8192 ELSE 0 END
                                                                              AS flags,
       hashtextextended(p.pair_id, 0)                                         AS pair_hash,
       0                                                                      AS request_bucket,
       coalesce(convert_to(pa.response_data::text, 'UTF8'), pa.response_raw)  AS primary_body,
       coalesce(convert_to(na.response_data::text, 'UTF8'), na.response_raw)  AS shadow_body,
       p.pair_id,
       p.request_sha256,
       NULL::json                                                             AS request_data,
       NULL::json                                                             AS request_headers,
       NULL::bytea                                                            AS generation
FROM inference_requests n
JOIN inference_requests p
  ON p.pair_id = substr(n.pair_id, 8) AND p.role = 'primary' AND p.inference_service = n.inference_service
 AND p.model_version IS NOT DISTINCT FROM n.model_version
 AND p.request_time >= %(since)s::timestamptz AND p.request_time < %(until)s::timestamptz
LEFT JOIN inference_responses pa
  ON pa.record_id = p.record_id AND pa.request_time = p.request_time AND pa.pair_id = p.pair_id
LEFT JOIN inference_responses na
  ON na.record_id = n.record_id AND na.request_time = n.request_time AND na.pair_id = n.pair_id
WHERE starts_with(n.pair_id, 'itself:')
  AND n.role = 'primary' AND n.inference_service = %(primary)s
LIMIT 100000
