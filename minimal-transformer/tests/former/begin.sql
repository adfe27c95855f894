BEGIN;
SET LOCAL statement_timeout = '30s';
SET LOCAL client_min_messages = warning;
SET LOCAL client_encoding = 'UTF8';
