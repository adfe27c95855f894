-- Whether all questions of a transaction see the same rows. The workers of a Citus cluster each take a
-- snapshot of their own.
SELECT NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')
