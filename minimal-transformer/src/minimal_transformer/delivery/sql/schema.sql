SELECT relnamespace::regnamespace FROM pg_class WHERE oid = to_regclass('inference_requests')
