-- Whole calls by their keys, in the keys' order. The bounds let the planner skip other days.
SELECT r.record_id, r.request_time, r.pair_id, r.protocol, r.model_name, r.predict_url,
       r.request_headers AS headers, convert_to(r.request_data::text, 'UTF8') AS data,
       r.request_raw AS raw, r.request_size AS size, r.request_truncated AS truncated
FROM unnest(%(records)s::uuid[], %(times)s::timestamptz[])
     WITH ORDINALITY AS wanted (record_id, request_time, place)
JOIN inference_requests r USING (record_id, request_time)
WHERE r.request_time BETWEEN %(first)s AND %(last)s
ORDER BY wanted.place
