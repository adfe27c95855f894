-- Whole calls by their keys, in the keys' order. LATERAL: one index lookup in one day per call,
-- whatever the planner knows about the tables.
SELECT r.*
FROM unnest(%(records)s::uuid[], %(times)s::timestamptz[])
     WITH ORDINALITY AS wanted (record_id, request_time, place)
CROSS JOIN LATERAL (
    SELECT c.record_id, c.request_time, c.pair_id, c.protocol, c.model_name, c.predict_url,
           c.request_headers AS headers, convert_to(c.request_data::text, 'UTF8') AS data,
           c.request_raw AS raw, c.request_size AS size, c.request_truncated AS truncated
    FROM inference_requests c
    WHERE c.record_id = wanted.record_id AND c.request_time = wanted.request_time
    LIMIT 1
) AS r
ORDER BY wanted.place
