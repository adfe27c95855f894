"""`make schema`: the schema in the database of POSTGRES_URI."""

from __future__ import annotations

import os
import sys

import psycopg

from embedded_postgres import apply_schema


def main() -> int:
    """Apply the schema to POSTGRES_URI: `python -m embedded_postgres`."""
    uri = os.environ.get("POSTGRES_URI")
    if not uri:
        print("POSTGRES_URI is not set; give it the URI of a user who may create tables and roles.")
        return 2
    try:
        apply_schema(uri)
    except psycopg.errors.FeatureNotSupported as error:
        # Without the place in the script, which is where a version that is too old ends it.
        print(f"The schema was not applied to POSTGRES_URI: {error.diag.message_primary}.")
        return 1
    except psycopg.Error as error:
        print(f"The schema was not applied to POSTGRES_URI: {str(error).strip()}")
        return 1
    print("The schema is in place: tables, partitions, views, roles and grants.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
