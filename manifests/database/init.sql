-- The operator feeds this to psql, as superuser in the database postgres, once. Without the first line
-- psql would go on after an error, answer 0, and the operator would take half a schema for a whole one.
\set ON_ERROR_STOP on
SELECT 'CREATE DATABASE predictions' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'predictions') \gexec
\connect predictions
\i /etc/postgres/schema.sql
