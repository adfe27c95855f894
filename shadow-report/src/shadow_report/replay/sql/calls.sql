-- Whole calls by their keys, in the keys' order. A plain join and all of the key: a distributed server
-- sends each key to the worker that has it, and no other join can be sent there.
SELECT r.record_id, r.request_time, r.pair_id, r.protocol, r.model_name, r.predict_url,
       r.request_headers AS headers, convert_to(r.request_data::text, 'UTF8') AS data,
       r.request_raw AS raw, r.request_size AS size, r.request_truncated AS truncated
FROM unnest(%(records)s::uuid[], %(times)s::timestamptz[], %(pair_ids)s::text[])
     WITH ORDINALITY AS wanted (record_id, request_time, pair_id, place)
JOIN inference_requests r USING (record_id, request_time, pair_id)
ORDER BY wanted.place
