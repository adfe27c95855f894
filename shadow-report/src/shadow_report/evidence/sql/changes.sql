-- By partition, how many of its rows were changed or deleted: what nobody does but to correct or to drop.
SELECT c.oid::text, coalesce(s.n_tup_upd + s.n_tup_del, 0)
FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid
LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
WHERE i.inhparent IN ('inference_requests'::regclass, 'inference_responses'::regclass)
