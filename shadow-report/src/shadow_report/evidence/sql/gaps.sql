-- Lost calls of one service on one side, by recorder: numbers that it gave, between a first and a last one,
-- and that are nowhere in the tables; and the number after the last of them, which is there.
SELECT recorder_id, sum(g.last_missing - g.first_missing + 1)::bigint, max(g.last_missing) + 1
FROM inference_gaps g
JOIN unnest(%(recorders)s::uuid[], %(first)s::bigint[], %(last)s::bigint[]) AS r (recorder_id, first, last)
     USING (recorder_id)
WHERE g.role = %(role)s AND g.inference_service = %(service)s
  AND g.first_missing >= r.first AND g.last_missing <= r.last
GROUP BY recorder_id
