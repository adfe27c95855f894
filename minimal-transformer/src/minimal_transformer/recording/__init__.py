"""A call becomes two rows. Nothing here knows KServe or Postgres."""
