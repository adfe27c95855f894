-- One row per pair id in the window: the first primary and the first shadow call with their answers,
-- NULLs where one is missing; with %(further)s instead a row for each further shadow call of a pair.
-- The leading columns are never NULL and of fixed width, so that a batch of them is read as one array;
-- `batch.py` states the same layout.
-- The window is the primary's: a replayed or late shadow call still finds its pair, and so does one whose
-- node has another clock. A shadow call of the window is alone if its primary's is nowhere in the tables; that
-- the times of the two are compared keeps Postgres from hashing all primary calls to tell.
-- Only the first of a side's calls with one pair id is compared. Numbering them costs a sort, so it is
-- done only when duplicates.sql found some, and grows as a sort does: NOT IN looks each call up in a
-- list once the further calls do not fit in memory, and without statistics an anti-join may do so too.
-- "< 2" and not "= 1": the planner expects a third of the rows and not one of two hundred.
-- With %(resent)s an attempt of a follower that ended with the candidate's process does not count: it comes after
-- the one that was answered, and is not a further call. Else that join is planned away.
WITH primary_call AS (
    SELECT * FROM (
        SELECT r.pair_id, r.record_id, r.request_time, r.request_size, r.request_sha256,
               r.pair_source = 'x-shadow-pair-id'                     AS is_mirrored,
               -- The mirrored route takes bodies of a declared length below 1 MB (manifests/mirroring).
               r.request_size >= 1000000
                   OR r.request_headers ->> 'transfer-encoding' IS NOT NULL AS is_unmirrored,
               CASE WHEN %(with_requests)s THEN r.request_headers END AS request_headers,
               CASE WHEN %(with_requests)s THEN r.request_data END    AS request_data,
               CASE WHEN %(deduplicate)s
                    THEN row_number() OVER (PARTITION BY pair_id ORDER BY request_time, record_id)
                    ELSE 1 END                                        AS attempt
        FROM inference_requests r
        WHERE r.role = 'primary' AND r.inference_service = %(primary)s AND NOT starts_with(r.pair_id, 'itself:')
          AND r.request_time >= %(since)s::timestamptz AND r.request_time < %(until)s::timestamptz
          AND (%(pair_ids)s::text[] IS NULL OR r.pair_id = ANY (%(pair_ids)s::text[]))
    ) AS calls
    WHERE attempt < 2
),
shadow_call AS (
    SELECT * FROM (
        SELECT r.pair_id, r.record_id, r.request_time, r.request_size, r.request_sha256, r.is_mirrored, r.died,
               CASE WHEN %(deduplicate)s
                    THEN row_number() OVER (PARTITION BY r.pair_id ORDER BY r.died, r.request_time, r.record_id)
                    ELSE 1 END AS attempt
        FROM (
            SELECT r.*, r.pair_source = 'x-shadow-pair-id' AS is_mirrored,
                   CASE WHEN %(resent)s
                        THEN a.record_id IS NULL AND r.request_headers ->> 'x-shadow-source' IS NOT NULL
                        ELSE false END AS died
            FROM inference_requests r
            LEFT JOIN inference_responses a
                   ON %(resent)s AND a.record_id = r.record_id AND a.request_time = r.request_time
                  AND a.pair_id = r.pair_id
            WHERE r.role = 'shadow' AND r.inference_service = %(shadow)s
              AND r.request_time >= %(shadow_joined_since)s::timestamptz
              AND r.created_at >= %(shadow_recorded_since)s::timestamptz
              AND (%(pair_ids)s::text[] IS NULL OR r.pair_id = ANY (%(pair_ids)s::text[]))
        ) AS r
    ) AS calls
    WHERE (attempt < 2 AND NOT %(further)s) OR (attempt > 1 AND NOT died AND %(further)s)
)
SELECT coalesce(p.request_time, '-infinity')                                  AS primary_time,
       coalesce(s.request_time, '-infinity')                                  AS shadow_time,
       CASE WHEN p.record_id IS NULL THEN -1 ELSE coalesce(pa.status_code, 0) END AS primary_status,
       CASE WHEN s.record_id IS NULL THEN -1 ELSE coalesce(sa.status_code, 0) END AS shadow_status,
       coalesce(pa.duration_ms, 'NaN')                                        AS primary_duration_ms,
       coalesce(sa.duration_ms, 'NaN')                                        AS shadow_duration_ms,
       coalesce(p.request_size, 0)                                            AS request_size,
       -- Of a body that a side did not read, or may not say, there is the size and the hash of nothing.
       coalesce(p.request_sha256 IS NOT DISTINCT FROM s.request_sha256
                OR p.request_size > 0 AND p.request_sha256 = sha256('')
                OR s.request_size > 0 AND s.request_sha256 = sha256(''), false)::int
           + 2 * coalesce(pa.response_truncated, false)::int
           + 4 * coalesce(sa.response_truncated, false)::int
           + 8 * (pa.response_data IS NOT NULL)::int
           + 16 * (sa.response_data IS NOT NULL)::int
           + 32 * coalesce(p.is_mirrored, false)::int
           + 64 * coalesce(s.is_mirrored, false)::int
           + 128 * coalesce(p.is_unmirrored, false)::int
           -- As why_withheld() in replay/calls.py says of a body. Bodies are looked at of those calls
           -- alone that a follower left out.
           + CASE WHEN %(followed)s AND s.record_id IS NULL AND p.record_id IS NOT NULL THEN (
                 SELECT CASE WHEN q.request_truncated AND q.request_raw IS NOT NULL THEN 256
                             WHEN q.request_truncated OR coalesce(octet_length(q.body), 0) <> q.request_size
                               OR position('"[redacted]"'::bytea IN q.body) > 0 THEN 512
                             ELSE 0 END
                 FROM (
                     SELECT r.*, CASE WHEN r.protocol = 'grpc' OR r.request_data IS NULL THEN r.request_raw
                                      ELSE convert_to(r.request_data::text, 'UTF8') END AS body
                     FROM inference_requests r
                     WHERE r.record_id = p.record_id AND r.request_time = p.request_time AND r.pair_id = p.pair_id
                 ) AS q)
             ELSE 0 END
           -- A stream that broke off, or in which the engine reported an error; one whose caller left.
           + CASE WHEN pa.generation IS NULL THEN 0 ELSE
                 16384 + CASE pa.generation ->> 'stream_end' WHEN 'cut' THEN 1024 WHEN 'left' THEN 2048
                     WHEN 'stopped' THEN 2048 WHEN 'done' THEN 1024 * (pa.error IS NOT NULL)::int
                     WHEN 'no_done' THEN 1024 * (pa.error IS NOT NULL)::int ELSE 0 END END
           + CASE WHEN sa.generation IS NULL THEN 0 ELSE
                 32768 + CASE sa.generation ->> 'stream_end' WHEN 'cut' THEN 4096 WHEN 'left' THEN 8192
                     WHEN 'stopped' THEN 8192 WHEN 'done' THEN 4096 * (sa.error IS NOT NULL)::int
                     WHEN 'no_done' THEN 4096 * (sa.error IS NOT NULL)::int ELSE 0 END END
                                                                              AS flags,
       hashtextextended(coalesce(p.pair_id, s.pair_id), 0)                    AS pair_hash,
       -- A sixteen-bit choice by content: all repeats of a request are in or out together.
       CASE WHEN length(p.request_sha256) < 2 THEN 65536
            ELSE coalesce(get_byte(p.request_sha256, 0) * 256 + get_byte(p.request_sha256, 1), 65536)
            END                                                               AS request_bucket,
       coalesce(convert_to(pa.response_data::text, 'UTF8'), pa.response_raw)  AS primary_body,
       coalesce(convert_to(sa.response_data::text, 'UTF8'), sa.response_raw)  AS shadow_body,
       coalesce(p.pair_id, s.pair_id)                                         AS pair_id,
       p.request_sha256,
       p.request_data,
       p.request_headers,
       -- Both sides' figures of generated answers in one value of a fixed width, see batch.py: NULL, and so
       -- four bytes, for all other answers.
       CASE WHEN pa.generation IS NOT NULL OR sa.generation IS NOT NULL THEN
           float8send(coalesce(pa.ttft_ms, 'NaN')) || float8send(coalesce(sa.ttft_ms, 'NaN'))
           || int4send(coalesce((pa.generation ->> 'prompt_tokens')::int, -1))
           || int4send(coalesce((sa.generation ->> 'prompt_tokens')::int, -1))
           || int4send(coalesce((pa.generation ->> 'completion_tokens')::int, -1))
           || int4send(coalesce((sa.generation ->> 'completion_tokens')::int, -1))
       END                                                                    AS generation
FROM primary_call p
FULL JOIN shadow_call s ON s.pair_id = p.pair_id
LEFT JOIN inference_responses pa
  ON pa.record_id = p.record_id AND pa.request_time = p.request_time AND pa.pair_id = p.pair_id
LEFT JOIN inference_responses sa
  ON sa.record_id = s.record_id AND sa.request_time = s.request_time AND sa.pair_id = s.pair_id
-- Of a WHERE that no NULL passes Postgres would make an inner join: where its statistics promise one row,
-- by a look at all calls for each. Of a CASE it does not.
WHERE CASE
    WHEN p.record_id IS NOT NULL THEN s.record_id IS NOT NULL OR NOT %(further)s
    ELSE NOT %(further)s
        AND s.request_time >= %(since)s::timestamptz AND s.request_time < %(until)s::timestamptz
        AND NOT (%(is_bounded)s AND EXISTS (
            SELECT FROM inference_requests q
            WHERE q.pair_id = s.pair_id AND q.role = 'primary' AND q.inference_service = %(primary)s
              AND q.request_time > s.request_time - interval '1 day'
              AND q.request_time < s.request_time + interval '1 day'))
END
