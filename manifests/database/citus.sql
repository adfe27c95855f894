-- Both tables spread over the workers of a Citus cluster, each pair on one of them. Run it once, on the
-- coordinator, in the database that schema.sql was applied to, as the tables' owner; running it again
-- changes nothing. Existing rows are moved. Delivery, shadow-report and maintain_partitions() need no
-- change; the coordinator logs in to the workers as the role that asks.
--
-- First see to it that no transformer writes that is older than pair_id in inference_responses, and that
-- their spools are empty: Citus runs no trigger that would complete their rows.

BEGIN;

SELECT pg_advisory_xact_lock(hashtextextended('shadow-deployment-schema', 0));
SET LOCAL search_path = public, pg_temp;

CREATE EXTENSION IF NOT EXISTS citus;

DO $distribute$
BEGIN
    IF EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = 'inference_requests'::regclass) THEN
        RETURN;
    END IF;
    DROP TRIGGER complete_response ON inference_responses;
    PERFORM create_reference_table('inference_retention');
    -- A multiple of the number of workers, and no more than needed: 32 halve the speed of delivery.
    PERFORM create_distributed_table('inference_requests', 'pair_id', shard_count => 8);
    PERFORM create_distributed_table('inference_responses', 'pair_id', colocate_with => 'inference_requests');
END
$distribute$;

COMMIT;
