-- The clock that calls in flight are told by. A standby's data may be minutes old, and stand still.
SELECT CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_xact_replay_timestamp(), now()) ELSE now() END
